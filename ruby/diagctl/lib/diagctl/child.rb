# frozen_string_literal: true

module Diagctl
  # A forked dumper, seen from the worker: reaped without waiting, killed when it outlives its deadline.
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
      @killed = false
    end

    # @return [Spawn::Outcome, nil] nil while it runs
    def reap
      _, status = Process.wait2(@pid, Process::WNOHANG)
      return kill_if_late if status.nil?

      finish(status)
    rescue Errno::ECHILD
      finish(nil)
    end

    def seconds
      Clock.now - @started
    end

    private

    # It is ours and not reaped, so its pid, which is its process group too, cannot be another's. The group takes a
    # `diagctl put` along that no longer reads.
    def kill_if_late
      return if Clock.now < @limit

      @killed = true
      [-@pid, @pid].each do |target|
        Process.kill(:KILL, target)
      rescue SystemCallError
        next
      end
      nil
    end

    def finish(status)
      said = @log ? @log.pread(LOG_BYTES, 0) : ""
      @log&.close
      outcome(status, said)
    rescue EOFError, SystemCallError
      @log.close
      outcome(status, "")
    end

    def outcome(status, said)
      return Spawn::Outcome.new(:unknown, nil, "", said) if status.nil?
      return Spawn::Outcome.new(:timeout, seconds.round(1), "", said) if @killed
      return Spawn::Outcome.new(:signaled, status.termsig, "", said) if status.signaled?

      Spawn::Outcome.new(:exited, status.exitstatus, "", said)
    end
  end
end
