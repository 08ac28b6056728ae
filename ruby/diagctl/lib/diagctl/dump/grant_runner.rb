# frozen_string_literal: true

module Diagctl
  # Carries out one grant: the inline reports, then the snapshot in whatever way the grant says.
  # Worker: poll thread, or the caller of Diagctl.capture. Returns to serving after the fork.
  #
  # @api private
  class GrantRunner
    # Between what the kernel's alarm gives the dumper and our own SIGKILL.
    GRACE = 10.0

    # @param versions [Hash{String=>String}]
    def initialize(client:, reports:, config:, versions:)
      @client = client
      @reports = reports
      @config = config
      @versions = versions
    end

    # @param costs [Hash{String=>Numeric}] what the poll has cost already
    # @yieldparam dumper [DumperHandle] a dumper to reap
    # @return [Spawn::Outcome, nil] how finalize ended; nil where a dumper goes on
    # @raise [Problem] the grant could not be used and was given back
    def run(grant, lease, costs = {}, &forked)
      collector = InlineCollector.new(@reports, budget: @config.inline_budget)
      snapshots, granted_reports = grant.reports.partition { |granted| granted.producer == "snapshot" }
      inline_ms = collector.collect(granted_reports)
      metadata = { "cost.inline_ms" => inline_ms, "cost.pause_ms" => inline_ms }
      collector.took.each { |name, ms| metadata["took.#{name}"] = ms }
      costs.each { |name, number| metadata["cost.#{name}"] = number }
      @versions.each { |name, version| metadata["versions.#{name}"] = version }
      writer = CaptureWriter.new(@client, @reports, lease, grant, failed: collector.failed, metadata: metadata)

      if snapshots.empty? then finish(writer, collector.collected)
      elsif grant.snapshot == "in_process" then in_process(writer, collector.collected, snapshots, grant)
      else fork_dumper(writer, collector.collected, snapshots, grant, lease, &forked)
      end
    rescue SystemCallError, IOError, NoMemoryError => e
      return_grant(grant, lease, e)
    end

    private

    def finish(writer, collected)
      writer.put_all(collected)
      writer.finalize
    end

    # Where forking is unwise: the heap is walked on this thread, with the host waiting for the GVL.
    def in_process(writer, collected, snapshots, grant)
      writer.put_all(collected)
      cpu = Clock.thread_cpu
      snapshots.each { |granted| writer.stream(granted, deadline: grant.deadline) }
      writer.metadata["cost.pause_ms"] = (writer.metadata["cost.pause_ms"] + Clock.ms(Clock.thread_cpu - cpu)).round(3)
      writer.finalize
    end

    # Shielded to the end: a thread that is ended after the fork would leave a dumper that nobody reaps.
    def fork_dumper(writer, collected, snapshots, grant, lease, &forked)
      Thread.handle_interrupt(Object => :never) do
        log = Libc.memory_file("diagctl")
        fork_time, fork_time_writer = IO.pipe
        worker = Process.pid
        started = Clock.now
        pid = ForkGuard.raw_fork
        as_dumper { DumperProcess.new(writer, lease, log, fork_time, worker, grant.deadline).run(collected, snapshots) } if pid.zero?

        fork_ms = Clock.ms(Clock.now - started)
        forked.call(DumperHandle.new(pid, grant, log, Clock.now + grant.deadline + GRACE))
        lease.close
        # Only the worker can tell how long it stood still, and only after it forked. It fits into the pipe's buffer.
        fork_time_writer.write_nonblock(fork_ms.to_s, exception: false)
        nil
      rescue SystemCallError, IOError, NoMemoryError
        # IOError: before it forks, Ruby flushes $stdout and $stderr, which the host may have closed.
        log&.close if pid.nil?
        raise
      ensure
        [fork_time, fork_time_writer].compact.each(&:close)
      end
    end

    # Never returns. In a fiber that blocks: an event loop of the application's lives on in the child, and would get each wait.
    def as_dumper(&block)
      Fiber.new(blocking: true, &block).resume
    ensure
      exit!(1)
    end

    def return_grant(grant, lease, error)
      reason = "the grant could not be used: #{error.class}: #{Diagctl.one_line(error.message)}"
      @client.abort(lease, grant.capture, reason)
      raise Problem.new(:dump, "capture #{grant.capture} was given back: #{reason}")
    end
  end
end
