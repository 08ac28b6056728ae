# frozen_string_literal: true

module Diagctl
  # Puts reports into a staged capture and publishes it. One object per grant.
  # Forked dumper; in the worker only for a capture without a fork.
  #
  # @api private
  class CaptureWriter
    ENDING = Signal.list.values_at("ALRM", "TERM", "INT", "QUIT", "HUP").freeze
    WATCH_INTERVAL = 0.05
    # Ruby 3.4 holds the GVL while `dump_all` writes, so that a worker that dumps itself stands still, its watchdog included.
    # `dump_all` gives up at its fifth write in a row that nobody took.
    LONGEST_STALL = 2.0

    attr_reader :failed, :metadata, :capture

    def initialize(client, reports, lease, grant, failed:, metadata:)
      @client = client
      @reports = reports
      @lease = lease
      @capture = grant.capture
      @failed = failed
      @metadata = metadata
    end

    # @param collected [Hash{String=>String}] inline reports
    def put_all(collected)
      collected.each do |name, data|
        problem = @client.put(@lease, @capture, name, data)
        @failed[name] = problem if problem
      end
    end

    # Lets a report write straight into the pipe of `diagctl put`: no byte of it is kept here.
    #
    # @param deadline [Numeric, nil] seconds after which a put that no longer reads is killed; nil where the kernel's
    #   alarm already ends this process
    def stream(granted, deadline: nil)
      report = @reports.fetch(granted.name)
      started = Clock.now
      # A dumper is ended by the signals that end any process, its alarm first of all; a worker hears them on another thread.
      except = deadline ? [] : ENDING
      stall = [deadline, LONGEST_STALL].min if deadline
      @client.open_put(@lease, @capture, granted.name, stall: stall) do |put|
        problem = watched(put, deadline) { write(report, put.stdin, granted.options, except) }
        outcome = put.finish(timeout: deadline || DumperProcess::PUT_TIMEOUT)
        @metadata["took.#{granted.name}"] = Clock.ms(Clock.now - started)
        # What put says is the cause when both failed: here it is only a broken pipe. Where the host took its status,
        # `finalize` finds out.
        stored = outcome.success? || outcome.kind == :unknown
        @failed[granted.name] = stored ? problem : outcome.describe("`diagctl put`") if problem || !stored
      end
    rescue Unavailable, SystemCallError => e
      @failed[granted.name] = e.message
    end

    # @return [Spawn::Outcome]
    def finalize
      @client.finalize(@lease, @capture, failed: @failed, metadata: @metadata)
    end

    # For a process that becomes `finalize` by exec and so keeps the lease under its own number.
    def finalize_argv(lease_fd:)
      @client.finalize_argv(@capture, lease_fd: lease_fd, failed: @failed, metadata: @metadata)
    end

    def abort(reason)
      @client.abort(@lease, @capture, reason)
    end

    private

    # From Ruby 3.4 on `dump_all` gives up where a write takes less than it was given ("full buffer"), or loses the rest
    # and goes on. A write into a blocking pipe takes all of it, unless a signal interrupts it.
    def write(report, pipe, options, except)
      pipe.nonblock = false
      Libc.without_signals(except: except) do
        report.call(pipe, options)
        pipe.close
      end
      nil
    rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
      e.is_a?(Unavailable) ? e.message : "#{e.class}: #{e.message}"
    end

    # A put that no longer reads would hold this thread in its write for ever: no signal reaches it there, so whoever ends
    # it waits. So does the process when it ends, which ends its other threads first: hence the `ensure`.
    def watched(put, deadline)
      return yield if deadline.nil?

      writer = Thread.current
      done = false
      watchdog = Thread.new do
        Thread.current.name = "diagctl watchdog"
        Thread.current.report_on_exception = false
        Thread.current.thread_variable_set(:fork_safe, true)
        limit = Clock.now + deadline
        sleep WATCH_INTERVAL until done || writer.pending_interrupt? || Clock.now >= limit
      ensure
        put.kill unless done
      end
      begin
        yield
      ensure
        done = true
        watchdog.kill
      end
    end
  end
end
