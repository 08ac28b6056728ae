# frozen_string_literal: true

module Diagctl
  # The children that diagctl starts: programs and dumpers. The application must neither be told of them nor take their exit status.
  #
  # `Process.wait` without a pid waits for any child of the process, so an application that counts its own children would meet
  # ours. Guard makes it pass over them. A C extension that calls waitpid(2) itself still meets them.
  #
  # Any thread of the worker. Relies on single operations of a Hash being atomic in Ruby.
  #
  # @api private
  module Children
    # Seconds. The most that the application's wait is held up by a program that is just being started.
    START_WAIT = 0.5
    # Seconds within which a thread of the application that has met a child of ours goes on to tell its status.
    TELL_WAIT = 0.5

    @ours = {}
    @starting = {}
    @met = {}

    class << self
      # A program may end before its pid is known here.
      #
      # @yieldreturn [Integer] the pid of a child that was just started
      # @return [Integer] the pid
      def start
        @starting[Thread.current] = true
        yield.tap { |pid| add(pid) }
      ensure
        @starting.delete(Thread.current)
      end

      # Takes over the status if the application's wait has met the child already.
      def add(pid)
        @ours[pid] = @met.delete(pid) || :running
      end

      # @return [Process::Status, nil] how the child ended, if the application's wait met it
      def delete(pid)
        status = @ours.delete(pid)
        status unless status == :running
      end

      # For a child that somebody else has reaped. The application's wait may have reaped it a moment ago.
      #
      # @return [Process::Status, nil] as `delete`
      def delete_reaped(pid)
        limit = Clock.now + TELL_WAIT
        sleep 0.001 while @ours[pid] == :running && Clock.now < limit
        delete(pid)
      end

      # @return [Boolean] whether the child is ours; its status is kept
      def keep(pid, status)
        @met[pid] = status
        await_starts unless @ours.key?(pid)
        return true if @met.delete(pid).nil?
        return false unless @ours.key?(pid)

        @ours[pid] = status
        true
      end

      def install
        Process.singleton_class.prepend(Guard) unless Process.singleton_class.include?(Guard)
      end

      # Finds what a program left running that this one replaced by exec under the same pid, as Puma's hot restart does in single
      # mode. Nobody else would reap it. A dumper leads its own process group at the dumper's priority, and has its title; a child
      # that has ended has no title any more, but the name of the poll thread or of the program.
      #
      # @return [Array<Integer>] pids
      def inherited
        File.read("/proc/self/task/#{Process.pid}/children").split.map(&:to_i).select { |pid| left_by_diagctl?(pid) }
      rescue SystemCallError
        [] # A kernel without CONFIG_PROC_CHILDREN.
      end

      private

      # A thread that another process left behind at a fork is not alive here.
      def await_starts
        limit = Clock.now + START_WAIT
        sleep 0.001 while @starting.keys.any?(&:alive?) && Clock.now < limit
      end

      def left_by_diagctl?(pid)
        name, fields = File.binread("/proc/#{pid}/stat").match(/\((.*)\) (.*)/m).captures
        state, _, group, *rest = fields.split
        return name.start_with?("diagctl") if state == "Z"

        arguments = File.binread("/proc/#{pid}/cmdline").split("\0")
        return true if arguments.any? { |argument| argument.start_with?("--lease-fd=") } || arguments.last(3) == StoreDir::QUESTION

        group.to_i == pid && rest[13].to_i == Isolation::NICE &&
          (name.start_with?("diagctl") || arguments.first.to_s.start_with?(Isolation::TITLE))
      rescue SystemCallError
        false # It has just been reaped.
      end
    end

    # Passes over diagctl's children. Waits for them, though, where the application has no child of its own left.
    #
    # @api private
    module Guard
      def wait(pid = -1, flags = 0)
        pass_over(pid) { super(pid, flags) }
      end

      def waitpid(pid = -1, flags = 0)
        pass_over(pid) { super(pid, flags) }
      end

      def wait2(pid = -1, flags = 0)
        pass_over(pid) { super(pid, flags) }
      end

      def waitpid2(pid = -1, flags = 0)
        pass_over(pid) { super(pid, flags) }
      end

      def waitall
        super.reject { |pid, status| Children.keep(pid, status) }
      end

      private

      def pass_over(pid)
        loop do
          result = yield
          found, = result
          return result if found.nil? || (pid.is_a?(Integer) && pid.positive?) || !Children.keep(found, $?)
        end
      end
    end
  end
end
