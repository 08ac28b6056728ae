# frozen_string_literal: true

module Diagctl
  # A forked dumper, seen from the worker: reaped without waiting, killed when it outlives its deadline or when memory
  # runs short.
  # Poll thread.
  #
  # @api private
  class Child
    LOG_BYTES = 4096

    attr_reader :pid, :capture, :rule

    # @param log [File, nil] memory file that is the dumper's stderr
    # @param limit [Float] monotonic second at which it is killed
    def initialize(pid, answer, log, limit)
      @pid = pid
      @capture = answer.capture
      @rule = answer.rule
      @log = log
      @limit = limit
      @started = Clock.now
      @handle = ProcessHandle.new(pid)
      @headroom = Headroom.new(answer.watch)
      @verdict = nil
    end

    # @return [Spawn::Outcome, nil] nil while it runs
    def reap
      # What it leaves behind holds the lease: a `diagctl put` that hangs, say. While it is not reaped its group is its own.
      @handle.kill_group if Libc.ended?(@pid)
      _, status = Process.wait2(@pid, Process::WNOHANG)
      return look if status.nil?

      finish(status)
    rescue Errno::ECHILD
      finish(nil)
    end

    def seconds
      Clock.now - @started
    end

    private

    def look
      return if @verdict

      if Clock.now >= @limit then @verdict = [:timeout, seconds.round(1)]
      elsif (shortage = @headroom.shortage) then @verdict = [:given_up, shortage]
      end
      @handle.kill_group if @verdict
      nil
    end

    def finish(status)
      said = @log ? @log.pread(LOG_BYTES, 0) : ""
      outcome(status, said)
    rescue EOFError, SystemCallError
      outcome(status, "")
    ensure
      [@log, @handle, @headroom].compact.each(&:close)
    end

    def outcome(status, said)
      # It may have come to its end just before it was to be killed.
      return Spawn::Outcome.new(*@verdict, "", said) if @verdict && (status.nil? || status.signaled?)
      return Spawn::Outcome.new(:unknown, nil, "", said) if status.nil?
      return Spawn::Outcome.new(:signaled, status.termsig, "", said) if status.signaled?

      Spawn::Outcome.new(:exited, status.exitstatus, "", said)
    end
  end
end
