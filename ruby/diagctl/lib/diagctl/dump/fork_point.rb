# frozen_string_literal: true

module Diagctl
  # Forks the dumper at a moment at which no code of the application can follow it into the child, and waits for nothing that
  # belongs to the application.
  #
  # - The garbage collector is at rest, and it is switched off in the child. A child that ended a collection would run the
  #   finalizers and the free functions of C extensions: on connections, threads and locks that it shares or does not have.
  # - Ruby flushes $stdout and $stderr before it forks. That could wait for ever for the reader of a pipe, or fail.
  # - Ruby 3.1 discards an interrupt (the kill of an exiting process) that waits for this thread at the fork.
  #
  # Worker: poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class ForkPoint
    # Seconds to wait for the end of a collection that is under way. Afterwards the worker ends it itself.
    WAIT = 2.0
    # Seconds after which it is enough that the collector is not marking: the rest of a sweep takes less than the rest of a mark.
    MARKED = 1.5
    # Seconds to wait until finalizers that are due have run, here in the worker.
    FINALIZERS = 1.0
    LOOK = 0.005
    # Other threads may start a collection explicitly, even between the last look and the fork.
    ATTEMPTS = 20

    # The collector was not at rest any more.
    class Moved < StandardError; end

    # This thread is about to be killed, or an exception for it waits.
    class Interrupted < Error; end

    # Stands in for $stdout and $stderr during the fork. Other threads write through it.
    class Stream < BasicObject
      def initialize(stream, forker, &before_fork)
        @stream = stream
        @forker = forker
        @before_fork = before_fork
      end

      # Ruby calls this right before it forks.
      def flush
        return @stream.flush unless ::Thread.current.equal?(@forker)

        @before_fork&.call
        self
      end

      def method_missing(...) = @stream.__send__(...)

      def respond_to_missing?(name, all = false) = @stream.respond_to?(name, all)

      def respond_to?(name, all = false) = name == :flush || @stream.respond_to?(name, all)
    end

    # @yield right before the fork, once no collection can begin, perhaps more than once
    # @return [Integer] the child's pid; 0 in the child, where the garbage collector stays off
    # @raise [SystemCallError]
    # @raise [Interrupted]
    def self.fork(&)
      new.fork(&)
    end

    # A fork can hang in Ruby itself when other Ractors run: they keep locks of the VM that nobody releases in the child.
    #
    # @return [String, nil] why this process must not fork
    def self.refusal
      count = defined?(Ractor) ? Ractor.count : 1
      "not forked: #{count} Ractors run in this process, and a forked child could hang (Ruby #{RUBY_VERSION})" if count > 1
    end

    # Milliseconds for which the fork held up the process: the rest of a collection, and the fork itself.
    attr_reader :pause_ms

    def initialize
      @limit = Clock.now + WAIT
    end

    # @see .fork
    def fork
      attempt = 0
      begin
        wait_for_rest
        without_collector do
          yield if block_given?
          between_flushes { ForkGuard.raw_fork }
        end
      rescue Moved
        retry if (attempt += 1) < ATTEMPTS
        raise Unavailable, "the garbage collector does not come to rest: the application starts it again and again"
      end
    end

    # @return [Boolean] whether no collection is under way and no finalizer is due
    def self.at_rest?
      resting? && finalized?
    end

    def self.resting?
      GC.latest_gc_info(:state) == :none
    rescue ArgumentError
      true # A collector without such a state.
    end

    def self.finalized?
      GC.stat(:heap_final_slots).zero?
    rescue ArgumentError
      true
    end

    private

    def wait_for_rest
      sleep LOOK until ForkPoint.at_rest? || Clock.now >= @limit || (Clock.now >= @limit - WAIT + MARKED && swept_soon?)
    end

    def swept_soon?
      GC.latest_gc_info(:state) != :marking
    end

    # Never enabled in the child.
    def without_collector
      pid = nil
      started = Clock.now
      # Ends what is still under way.
      was_off = GC.disable
      ended = Clock.now - started
      let_finalizers_run
      started = Clock.now
      pid = yield
      @pause_ms = Clock.ms(ended + Clock.now - started)
      pid
    ensure
      GC.enable unless was_off || pid&.zero?
    end

    # A finalizer that hangs does so in the worker only: Ruby runs no other before it has returned.
    def let_finalizers_run
      limit = Clock.now + FINALIZERS
      sleep LOOK until ForkPoint.finalized? || Clock.now >= limit
      @finalizers_hang = !ForkPoint.finalized?
    end

    def between_flushes
      streams = [$stdout, $stderr]
      stand_ins = [Stream.new($stdout, Thread.current), Stream.new($stderr, Thread.current) { last_look }]
      $stdout, $stderr = stand_ins
      yield
    ensure
      $stdout = streams[0] if $stdout.equal?(stand_ins[0])
      $stderr = streams[1] if $stderr.equal?(stand_ins[1])
    end

    def last_look
      raise Interrupted, "the thread that was to fork is about to end" if Thread.pending_interrupt?
      raise Moved unless ForkPoint.resting? && (@finalizers_hang || ForkPoint.finalized?)
    end
  end
end
