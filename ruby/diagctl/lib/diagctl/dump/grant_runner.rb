# frozen_string_literal: true

module Diagctl
  # Carries out one grant: makes the inline reports, then the snapshot reports in a forked dumper or in this process.
  # Worker: poll thread, or the caller of Diagctl.capture. Returns right after the fork.
  #
  # @api private
  class GrantRunner
    # Seconds between the kernel's alarm in the dumper and the worker's SIGKILL.
    GRACE = 10.0

    # @param versions [Hash{String=>String}]
    def initialize(client:, reports:, config:, versions:)
      @client = client
      @reports = reports
      @config = config
      @versions = versions
    end

    # @param costs [Hash{String=>Numeric}] what the poll has cost so far
    # @yieldparam dumper [DumperHandle] a dumper to reap
    # @return [Outcome, nil] how `diagctl finalize` ended; nil when a dumper was forked
    # @raise [Problem] the grant could not be used and was returned
    def run(grant, lease, costs = {}, &forked)
      collector = InlineCollector.new(@reports, budget: @config.inline_budget)
      snapshots, inline = grant.reports.partition(&:snapshot?)
      inline_ms = collector.collect(inline)
      writer = CaptureWriter.new(@client, @reports, lease, grant.capture,
        failed: collector.failed, metadata: metadata(inline_ms, collector.took, costs))

      if snapshots.empty? then finish(writer, collector.collected)
      elsif grant.snapshot == "in_process" then dump_in_process(writer, collector.collected, snapshots, grant)
      else fork_dumper(writer, collector.collected, snapshots, grant, lease, &forked)
      end
    rescue SystemCallError, IOError, NoMemoryError => e
      return_grant(grant, lease, e)
    end

    private

    def metadata(inline_ms, took, costs)
      {
        "cost.inline_ms" => inline_ms, "cost.pause_ms" => inline_ms,
        **took.transform_keys { |name| "took.#{name}" },
        **costs.transform_keys { |name| "cost.#{name}" },
        **@versions.transform_keys { |name| "versions.#{name}" }
      }
    end

    def finish(writer, collected)
      writer.put_all(collected)
      writer.finalize
    end

    # For applications where forking is unwise. This thread walks the heap, and the others wait for the GVL.
    def dump_in_process(writer, collected, snapshots, grant)
      writer.put_all(collected)
      cpu = Clock.thread_cpu
      snapshots.each { |granted| writer.stream(granted, deadline: grant.deadline) }
      writer.metadata["cost.pause_ms"] = (writer.metadata["cost.pause_ms"] + Clock.ms(Clock.thread_cpu - cpu)).round(3)
      writer.finalize
    end

    # Shielded to the end: a thread that is killed after the fork would leave a dumper that nobody reaps.
    def fork_dumper(writer, collected, snapshots, grant, lease, &forked)
      Thread.handle_interrupt(Object => :never) do
        log = Libc.memory_file("diagctl")
        fork_time, fork_time_writer = IO.pipe
        dumper = DumperProcess.new(writer, lease: lease, log: log, fork_time: fork_time, worker: Process.pid,
          deadline: grant.deadline)
        # Ruby forgets all but the forking one in the child.
        writer.threads = Thread.list
        started = Clock.now
        pid = ForkGuard.raw_fork
        in_child { dumper.run(collected, snapshots) } if pid.zero?

        fork_ms = Clock.ms(Clock.now - started)
        forked.call(DumperHandle.new(pid, grant, log, Clock.now + grant.deadline + GRACE))
        lease.close
        # Only the worker knows how long the fork paused it, and only afterwards. The number fits into the pipe's buffer.
        fork_time_writer.write_nonblock(fork_ms.to_s, exception: false)
        nil
      rescue SystemCallError, IOError, NoMemoryError
        # IOError: before it forks, Ruby flushes $stdout and $stderr, which the application may have closed.
        log&.close if pid.nil?
        raise
      ensure
        [fork_time, fork_time_writer].compact.each(&:close)
      end
    end

    # Never returns. Runs the block in a blocking fiber: the child inherits the application's fiber scheduler, which would
    # otherwise handle every wait and run the application's fibers.
    def in_child(&block)
      Fiber.new(blocking: true, &block).resume
    ensure
      exit!(1)
    end

    def return_grant(grant, lease, error)
      reason = "the grant could not be used: #{error.class}: #{Diagctl.one_line(error.message)}"
      @client.abort(lease, grant.capture, reason)
      raise Problem.new(:dump, "capture #{grant.capture} was returned: #{reason}")
    end
  end
end
