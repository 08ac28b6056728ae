# frozen_string_literal: true

module Diagctl
  # Carries out one grant: the inline reports, then the snapshot in whatever way the grant says.
  # Worker: poll thread, or the caller of Diagctl.capture. Returns to serving after the fork.
  #
  # @api private
  class Dump
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
    # @yieldparam child [Child] a dumper to reap
    # @return [Spawn::Outcome, nil] how finalize ended; nil where a dumper goes on
    # @raise [Problem] the grant could not be used and was given back
    def perform(answer, lease, costs = {}, &forked)
      inline = Inline.new(@reports, budget: @config.inline_budget)
      snapshots, orders = answer.reports.partition { |order| order.producer == "snapshot" }
      inline_ms = inline.collect(orders)
      set = { "cost.inline_ms" => inline_ms, "cost.pause_ms" => inline_ms }
      inline.took.each { |name, ms| set["took.#{name}"] = ms }
      costs.each { |name, number| set["cost.#{name}"] = number }
      @versions.each { |name, version| set["versions.#{name}"] = version }
      produce = Produce.new(@client, @reports, lease, answer, failed: inline.failed, set: set)

      if snapshots.empty? then finish(produce, inline.collected)
      elsif answer.snapshot == "in_process" then in_process(produce, inline.collected, snapshots, answer)
      else fork_dumper(produce, inline.collected, snapshots, answer, lease, &forked)
      end
    rescue SystemCallError, IOError, NoMemoryError => e
      give_back(answer, lease, e)
    end

    private

    def finish(produce, collected)
      produce.put_all(collected)
      produce.finalize
    end

    # Where forking is unwise: the heap is walked on this thread, with the host waiting for the GVL.
    def in_process(produce, collected, snapshots, answer)
      produce.put_all(collected)
      cpu = Clock.thread_cpu
      snapshots.each { |order| produce.stream(order, deadline: answer.deadline) }
      produce.set["cost.pause_ms"] = (produce.set["cost.pause_ms"] + Clock.ms(Clock.thread_cpu - cpu)).round(3)
      produce.finalize
    end

    # Shielded to the end: a thread that is ended after the fork would leave a dumper that nobody reaps.
    def fork_dumper(produce, collected, snapshots, answer, lease, &forked)
      Thread.handle_interrupt(Object => :never) do
        log = Libc.memory_file("diagctl")
        fork_time, told = IO.pipe
        worker = Process.pid
        started = Clock.now
        pid = ForkGuard.raw_fork
        as_dumper { Snapshot.new(produce, lease, log, fork_time, worker, answer.deadline).run(collected, snapshots) } if pid.zero?

        fork_ms = Clock.ms(Clock.now - started)
        forked.call(Child.new(pid, answer, log, Clock.now + answer.deadline + GRACE))
        lease.close
        # Only the worker can tell how long it stood still, and only after it forked. It fits into the pipe's buffer.
        told.write_nonblock(fork_ms.to_s, exception: false)
        nil
      rescue SystemCallError, IOError, NoMemoryError
        # IOError: before it forks, Ruby flushes $stdout and $stderr, which the host may have closed.
        log&.close if pid.nil?
        raise
      ensure
        [fork_time, told].compact.each(&:close)
      end
    end

    # Never returns. In a fiber that blocks: an event loop of the application's lives on in the child, and would get each wait.
    def as_dumper(&block)
      Fiber.new(blocking: true, &block).resume
    ensure
      exit!(1)
    end

    def give_back(answer, lease, error)
      reason = "the grant could not be used: #{error.class}: #{Diagctl.one_line(error.message)}"
      @client.abort(lease, answer.capture, reason)
      raise Problem.new(:dump, "capture #{answer.capture} was given back: #{reason}")
    end
  end
end
