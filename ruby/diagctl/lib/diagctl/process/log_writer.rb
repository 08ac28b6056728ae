# frozen_string_literal: true

module Diagctl
  # Writes lines with the application's logger, on a thread that lives as long as there are lines. The log may be a pipe whose reader
  # hangs: then this thread waits, and nothing else does. Meanwhile a bounded number of lines is kept.
  #
  # Any thread may push, also in a signal handler.
  #
  # @api private
  class LogWriter
    # Seconds to wait until a line is written, so that lines appear in order with those of the application.
    PATIENCE = 0.2
    KEPT = 100

    def initialize
      reset
    end

    def push(logger, level, line)
      reset unless @pid == Process.pid # In a forked child the thread is gone, and its lines are the parent's.
      return @lost += 1 if @lines.size >= KEPT

      @lines << [logger, level, line]
      thread = writing
      @stalled = true unless @stalled || thread.join(PATIENCE)
    rescue ThreadError
      # No thread can be made while this process exits, and it must not wait for its log. Otherwise the process has too many threads.
      write(*@lines.pop) until @lines.empty? || !Thread.main.alive?
    end

    private

    def reset
      @pid = Process.pid
      @lines = Queue.new
      @lost = 0
      @stalled = false
      @thread = nil
    end

    def writing
      return @thread if @thread&.alive?

      @thread = Thread.new do
        Thread.current.report_on_exception = false
        Thread.current.abort_on_exception = false
        Thread.current.name = "diagctl log"
        Thread.current.thread_variable_set(:fork_safe, true)
        write(*@lines.pop) until @lines.empty?
        @stalled = false
      end
    end

    def write(logger, level, line)
      logger.public_send(level, line)
      return if @lost.zero?

      lost, @lost = @lost, 0
      logger.public_send(:warn, "#{lost} lines were lost while the log was stalled")
    rescue StandardError
      nil # A broken logger is for the application to repair.
    end
  end
end
