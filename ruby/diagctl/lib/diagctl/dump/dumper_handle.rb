# frozen_string_literal: true

module Diagctl
  # The worker's side of a forked dumper: reaps it without waiting, and kills it when it outlives its deadline or when memory
  # runs short. Runs in the worker, on the poll thread or in Diagctl.capture; DumperProcess is the child's side.
  #
  # @api private
  class DumperHandle
    # Exit status of a child in which a garbage collection was under way after all. It could have run code of the application.
    NOT_AT_REST = 75
    COLLECTING = "a garbage collection began at the moment of the fork"
    # How much of the dumper's stderr is read.
    LOG_BYTES = 4096

    attr_reader :pid, :grant

    # @param log [File, nil] the memory file that is the dumper's stderr
    # @param limit [Float] monotonic time at which the dumper is killed
    def initialize(pid, grant, log, limit)
      @pid = pid
      @grant = grant
      @log = log
      @limit = limit
      @started = Clock.now
      @handle = ProcessHandle.new(pid)
      Children.add(pid)
      @headroom = Headroom.new(grant.watch)
      @verdict = nil
    end

    # @return [Outcome, nil] nil while the dumper runs
    def reap
      # A `diagctl put` that hangs would keep the lease after its dumper. Until the dumper is reaped, the group is certainly its
      # own.
      @handle.kill_group if Libc.ended?(@pid)
      _, status = Process.wait2(@pid, Process::WNOHANG)
      return check if status.nil?

      Children.delete(@pid)
      finish(status)
    rescue Errno::ECHILD
      finish(Children.delete_reaped(@pid))
    end

    # @return [Float] seconds since the fork
    def seconds
      Clock.now - @started
    end

    private

    # @return [nil]
    def check
      return if @verdict

      if Clock.now >= @limit then @verdict = [:timeout, seconds.round(1)]
      elsif (shortage = @headroom.shortage) then @verdict = [:abandoned, shortage]
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
      # The dumper may have ended by itself just before it would have been killed.
      return Outcome.new(*@verdict, "", said) if @verdict && (status.nil? || status.signaled?)
      return Outcome.new(:unknown, nil, "", said) if status.nil?
      return Outcome.new(:signaled, status.termsig, "", said.empty? ? alarm(status) : said) if status.signaled?

      return Outcome.new(:abandoned, COLLECTING, "", said) if status.exitstatus == NOT_AT_REST

      Outcome.new(:exited, status.exitstatus, "", said)
    end

    # A dumper that its alarm killed had no time to log the reason.
    def alarm(status)
      return "" unless status.termsig == Signal.list["ALRM"]

      "the dump was not finished within #{format("%g", @grant.deadline)} s (guards.deadline)"
    end
  end
end
