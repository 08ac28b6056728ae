# frozen_string_literal: true

module Diagctl
  # Carries out one grant: makes the inline reports, then the snapshot reports in a forked dumper or in this process.
  # Worker: poll thread, or the caller of Diagctl.capture. Returns right after the fork.
  #
  # @api private
  class GrantRunner
    # Seconds between the kernel's alarm in the dumper and the worker's SIGKILL.
    GRACE = 10.0
    INTERRUPTED = "the process or its thread was ended during the capture"

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
      metadata = {}
      writer = CaptureWriter.new(@client, @reports, lease, grant.capture, failed: collector.failed, metadata: metadata)
      settled = false
      metadata.merge!(metadata(collector.collect(inline), collector.took, costs))
      outcome = if snapshots.empty? || refused?(grant, snapshots, collector.failed) then writer.finalize(collector.collected)
        elsif grant.snapshot == "in_process" then dump_in_process(writer, collector.collected, snapshots, grant)
        else fork_dumper(writer, collector.collected, snapshots, grant, lease, &forked)
        end
      settled = true
      outcome
    rescue SystemCallError, IOError, NoMemoryError, Error => e
      settled = true
      return_grant(grant, lease, e)
    ensure
      # The thread is being ended: by the application, or because the process exits. Its programs have been killed.
      writer&.leave(collector.collected, INTERRUPTED) unless settled || lease.io.closed?
    end

    private

    def metadata(inline_ms, took, costs)
      {
        "cost.inline_ms" => inline_ms, "cost.pause_ms" => inline_ms,
        **took.transform_keys { |name| "took.#{name}" },
        **costs.transform_keys { |name| "cost.#{name}" },
        **@versions.transform_keys { |name| "versions.#{name}" },
        **labels
      }
    end

    # @return [Boolean] whether no dumper can be forked. The reason then stands in place of the reports
    def refused?(grant, snapshots, failed)
      why = ForkPoint.refusal if grant.snapshot == "fork"
      snapshots.each { |granted| failed[granted.name] = why } if why
      !why.nil?
    end

    # A label that cannot be had is left out.
    def labels
      @config.labels.to_h { |name, label| [name, label.is_a?(Proc) ? called(name, label) : label] }.reject { |_, value| value.empty? }
    end

    def called(name, block)
      Diagctl.one_line(Callback.call("label #{name}", @config.callback_timeout) { block.call.to_s })
    rescue Unavailable => e
      Diagctl.log.warn_once([:label, name], e.message)
      ""
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
        dumper = DumperProcess.new(writer, lease: lease, log: log, fork_time: fork_time, worker: Process.pid)
        point = ForkPoint.new
        # Ruby forgets all threads but the forking one in the child.
        pid = point.fork { writer.threads = ThreadStacks.collect(Thread.list) }
        in_child(grant) { dumper.run(collected, snapshots) } if pid.zero?

        forked.call(DumperHandle.new(pid, grant, log, Clock.now + grant.deadline + GRACE))
        @client.register(grant.capture, pid)
        lease.close
        # Only the worker knows how long the fork paused it, and only afterwards. The number fits into the pipe's buffer.
        fork_time_writer.write_nonblock(point.pause_ms.to_s, exception: false)
        nil
      rescue SystemCallError, IOError, NoMemoryError, Error
        log&.close if pid.nil?
        raise
      ensure
        [fork_time, fork_time_writer].compact.each(&:close)
      end
    end

    # Never returns. Runs the block in a blocking fiber: the child inherits the application's fiber scheduler, which would
    # otherwise handle every wait and run the application's fibers.
    def in_child(grant, &block)
      exit!(DumperHandle::NOT_AT_REST) unless ForkPoint.resting?
      Isolation.bound(grant.deadline)
      @client.register(grant.capture, Process.pid)
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
