# frozen_string_literal: true

module Diagctl
  # Walks the heap with the native walker (crates/heapwalk), in processes that the dumper forks for it. So a walker that crashes or
  # hangs ends that process only, and the dumper goes on with Ruby's own means.
  #
  # Forked dumper only. One object per capture.
  #
  # @api private
  class Walker
    # The walker wrote a part of the report and then failed, so what it wrote cannot be continued.
    Spoiled = Class.new(StandardError)

    # The request for a walk, as in crates/heapwalk/src/request.rs.
    GRAPH = 0
    COUNTS = 1
    PROOF = 2
    OBJECTS = 3
    PROVEN = 4
    # The kernel sends this signal when memory ends, and people do. It says nothing about the walker.
    INNOCENT = "KILL"

    # @return [String, nil] why the walker was not used, or not to the end
    attr_reader :reason
    # @return [Integer] the most memory that a walk had to itself, bytes
    attr_reader :copied

    # @param threads [Hash{Thread=>String}] threads of the worker with their stacks (see ThreadStacks)
    def initialize(client, lease, capture, threads)
      @source = WalkerSource.new(client, lease, capture)
      @lease = lease
      @threads = threads
      @waiting = {}
      @held = [lease.io]
      @layout = 0
      @copied = 0
    end

    # Forks the process that will walk for a report now, before the dumper makes more objects of its own. Without it, one is forked
    # when it is needed.
    #
    # @param report [String]
    def stand_by(report)
      return unless @source.file

      pipe = IO.pipe
      walk = Walk.new(@source.file, status, pipe.last, @threads, @held.dup.push(pipe.first))
      @waiting[report] = [pipe, walk]
      @held.push(*pipe, walk.orders)
    rescue SystemCallError
      pipe&.each(&:close)
    end

    # @return [Array(IO, IO), nil] the pipe that the waiting process writes the report into, both ends
    def pipe(report)
      @waiting[report]&.first
    end

    # Ends the waiting process, which would keep the pipe of the report open.
    def dismiss(report)
      @waiting.delete(report)&.last&.close
    end

    # @param io [IO] where the report goes
    # @param mode [Integer] GRAPH, COUNTS or OBJECTS
    # @return [Boolean] false if nothing was written
    # @raise [Spoiled]
    def walk(io, mode)
      return false if @reason

      refusal = @source.refusal
      return give_up(refusal) if refusal

      @proven ||= @source.proven? || prove(io)
      return false unless @proven && attempt(waiting(io) || fork(io), mode | PROVEN)

      @source.worked if @newly_proven
      @newly_proven = false
      true
    rescue SystemCallError => e
      give_up("#{e.class}: #{e.message}")
    end

    private

    # In a process of its own: the sample of objects that it needs is not in the heap that is walked.
    def prove(io)
      @newly_proven = attempt(fork(io), PROOF)
    end

    def fork(io)
      Walk.new(@source.file, status, io, @threads, [@lease.io])
    end

    def waiting(io)
      @waiting.each_value { |_, walk| return walk if walk.output.equal?(io) }
      nil
    end

    def status
      @status ||= Libc.memory_file("diagctl")
    end

    def attempt(walk, mode)
      ended = walk.run(mode, @layout)
      state, written, why = walk.reached
      @layout = walk.layout
      @copied = [@copied, walk.copied].max
      return true if ended&.success? && state == Walk::DONE

      state == Walk::GAVE_UP ? give_up(why) : crashed(ended)
      raise Spoiled, @reason if written.positive?

      false
    ensure
      walk.close
    end

    def crashed(ended)
      signal = Signal.signame(ended.termsig) if ended&.signaled?
      how = ended ? "ended with status #{ended.exitstatus}" : "stood still for #{format("%g", Walk::LONGEST_STALL)} s"
      how = "was ended by SIG#{signal}" if signal
      give_up("the heap walker #{how}")
      @source.crashed(@reason) unless signal == INNOCENT
    end

    # @return [false]
    def give_up(reason)
      @reason = reason.empty? ? "unknown" : reason
      false
    end
  end
end
