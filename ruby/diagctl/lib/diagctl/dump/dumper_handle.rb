# frozen_string_literal: true

module Diagctl
  # A forked dumper, seen from the worker: reaped without waiting, killed when it outlives its deadline or when memory
  # runs short.
  # Poll thread.
  #
  # @api private
  class DumperHandle
    LOG_BYTES = 4096

    attr_reader :pid, :capture, :rule

    # Dumpers of the program whose place this one took under its pid, which is what Puma's hot restart of single mode does
    # (exec): nobody else would reap them. They have the group and the priority that DumperProcess gave them, and its title; one that
    # has ended has no title any more, but the name of the poll thread or of `diagctl finalize`.
    #
    # @return [Array<Integer>] pids
    def self.inherited
      File.read("/proc/self/task/#{Process.pid}/children").split.map(&:to_i).select do |pid|
        name, fields = File.binread("/proc/#{pid}/stat").match(/\((.*)\) (.*)/m).captures
        group, nice = fields.split.values_at(2, 16).map(&:to_i)
        next unless group == pid && nice == DumperProcess::NICE

        name.start_with?("diagctl") || File.binread("/proc/#{pid}/cmdline").start_with?(DumperProcess::TITLE)
      end
    rescue SystemCallError
      [] # A kernel without CONFIG_PROC_CHILDREN.
    end

    # @param log [File, nil] memory file that is the dumper's stderr
    # @param limit [Float] monotonic second at which it is killed
    def initialize(pid, grant, log, limit)
      @pid = pid
      @capture = grant.capture
      @rule = grant.rule
      @deadline = grant.deadline
      @log = log
      @limit = limit
      @started = Clock.now
      @handle = ProcessHandle.new(pid)
      @headroom = Headroom.new(grant.watch)
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
      return Spawn::Outcome.new(:signaled, status.termsig, "", said.empty? ? alarm(status) : said) if status.signaled?

      Spawn::Outcome.new(:exited, status.exitstatus, "", said)
    end

    # The kernel's alarm leaves a dumper no time to say what it was for.
    def alarm(status)
      return "" unless status.termsig == Signal.list["ALRM"]

      "it was not done within #{format("%g", @deadline)} s (guards.deadline)"
    end
  end
end
