# frozen_string_literal: true

module Diagctl
  # Puts reports into a staged capture and publishes it. One object per grant.
  # Forked dumper; in the worker only for a capture without a fork.
  #
  # @api private
  class CaptureWriter
    # Seconds for `diagctl put` in the dumper. The kernel's alarm ends the dumper long before.
    PUT_TIMEOUT = 86_400
    # Signals that must still reach a dumper while it writes: its alarm, and those that end any process.
    ENDING = Signal.list.values_at("ALRM", "TERM", "INT", "QUIT", "HUP").freeze
    # Seconds after which a write fails in the worker when `diagctl put` reads nothing. Ruby 3.4 holds the GVL while `dump_all`
    # writes, so the whole worker stands still, watchdog included. `dump_all` gives up after five failed writes in a row.
    LONGEST_STALL = 2.0

    # @!attribute [r] failed
    #   @return [Hash{String=>String}] report => why it could not be made
    # @!attribute [r] metadata
    #   @return [Hash{String=>Object}] fields for the capture's metadata (`finalize --set`)
    # @!attribute [r] capture
    #   @return [String] id
    attr_reader :failed, :metadata, :capture
    # @return [Hash{Thread=>String}] threads of the worker with their stacks (see ThreadStacks), set before a fork
    attr_writer :threads

    def initialize(client, reports, lease, capture, failed:, metadata:)
      @client = client
      @reports = reports
      @lease = lease
      @capture = capture
      @failed = failed
      @metadata = metadata
      @threads = {}
    end

    # Forks the processes that will walk the heap for these reports.
    #
    # @param snapshots [Array<Grant::GrantedReport>]
    def stand_by(snapshots)
      snapshots.each do |granted|
        report = @reports.fetch(granted.name)
        walker.stand_by(granted.name) if report.respond_to?(:walks?) && report.walks?(granted.options)
      rescue Unavailable
        next # It fails when it is its turn.
      end
    end

    # Stores the inline reports before a snapshot is begun, so that they outlive a dump that breaks off. `diagctl finalize` finds
    # out which of them were stored.
    #
    # @param collected [Hash{String=>String}] inline reports by name
    def put_all(collected)
      records = Records.new
      collected.each { |name, data| records.report(name, data) }
      @failed.each { |name, message| records.failed(name, message) }
      @client.put_records(@lease, @capture, records) unless records.empty?
    end

    # Lets a report write straight into the pipe of `diagctl put`. Nothing is buffered here.
    #
    # @param deadline [Numeric, nil] seconds after which a put that no longer reads is killed; nil in the dumper, which the
    #   kernel's alarm ends
    def stream(granted, deadline: nil)
      walker = self.walker if deadline.nil?
      started = Clock.now
      begin
        put(granted, walker, deadline)
      rescue Walker::Spoiled
        walker.dismiss(granted.name) # Its pipe was for the first attempt.
        put(granted, walker, deadline, again: true)
      end
      @metadata["took.#{granted.name}"] = Clock.ms(Clock.now - started)
      @metadata["note.#{granted.name}"] = "not by the heap walker: #{walker.reason}" if walker&.reason
    rescue Unavailable, SystemCallError => e
      @failed[granted.name] = e.message
    ensure
      walker&.dismiss(granted.name)
    end

    # @return [Integer] memory that walks of the heap had to themselves, bytes
    def copied_by_walks
      @walker ? @walker.copied : 0
    end

    # @param collected [Hash{String=>String}] inline reports that are not stored yet
    # @return [Outcome]
    def finalize(collected = {})
      @client.finalize(@lease, @capture, records(collected))
    end

    # Everything that `diagctl finalize` has to know.
    #
    # @return [Records]
    def records(collected = {})
      all = Records.new
      collected.each { |name, data| all.report(name, data) }
      @failed.each { |name, message| all.failed(name, message) }
      @metadata.each { |key, value| all.set(key, value) }
      all
    end

    # Publishes what was made, without waiting for it.
    def leave(collected, reason)
      @client.leave(@lease, @capture, records(collected), reason)
    end

    # For the dumper, which turns into `diagctl finalize` by exec and keeps the lease under its own descriptor number.
    def finalize_argv(lease_fd:)
      @client.finalize_argv(@capture, lease_fd: lease_fd)
    end

    # Publishes what is whole.
    def break_off(reason)
      @client.break_off(@lease, @capture, reason)
    end

    private

    def walker
      @walker ||= Walker.new(@client, @lease, @capture, @threads)
    end

    # The report has failed only if its last attempt has.
    def put(granted, walker, deadline, again: false)
      report = @reports.fetch(granted.name)
      # In the worker another thread handles the signals.
      except = deadline ? [] : ENDING
      stall = [deadline, LONGEST_STALL].min if deadline
      pipe = walker&.pipe(granted.name)
      @client.open_put(@lease, @capture, granted.name, stdin: pipe || true, stall: stall, again: again) do |put|
        problem = watched(put, deadline) { write(report, put.stdin, granted.options, except, walker) }
        # The end of the pipe is the end of the report. It would count if this process died before it could say that it is not.
        put.kill if problem && !of_put?(problem)
        walker&.dismiss(granted.name)
        record(granted.name, problem, put.finish(timeout: deadline || PUT_TIMEOUT))
      end
    end

    def watched(put, deadline, &block)
      deadline ? PutWatchdog.watch(put, deadline, &block) : yield
    end

    # From Ruby 3.4 on `dump_all` gives up when a write takes less than it was given ("full buffer"), or loses the rest and
    # continues. A write into a blocking pipe takes everything, unless a signal interrupts it.
    #
    # @return [Exception, nil] why the report could not be written
    # @raise [Walker::Spoiled]
    def write(report, pipe, options, except, walker)
      pipe.nonblock = false
      Libc.without_signals(except: except) do
        report.call(pipe, options, *walker)
        pipe.close
      end
      nil
    rescue Walker::Spoiled
      raise
    rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
      e
    end

    # When `diagctl put` fails, it knows the cause; this side only sees a broken pipe.
    def of_put?(problem) = problem.is_a?(Errno::EPIPE)

    # When the application took the exit status, `diagctl finalize` finds out whether the report is complete.
    def record(name, problem, outcome)
      if !outcome.success? && outcome.kind != :unknown && (problem.nil? || of_put?(problem))
        @failed[name] = outcome.describe("`diagctl put`")
      elsif problem
        @failed[name] = problem.is_a?(Unavailable) ? problem.message : "#{problem.class}: #{problem.message}"
      end
    end
  end
end
