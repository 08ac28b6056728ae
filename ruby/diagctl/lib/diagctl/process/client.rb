# frozen_string_literal: true

module Diagctl
  # The commands of docs/protocol.md, one method each.
  # Worker (poll thread, or the caller of Diagctl.capture) and forked dumper.
  #
  # @api private
  class Client
    ABORT_TIMEOUT = 30.0

    attr_reader :binary, :dir

    def initialize(binary:, dir:, config:)
      @binary = binary
      @dir = dir
      @config = config
    end

    # @param answer_event [String, nil] the event that the caller waits for: the rules on it come first
    # @return [Outcome]
    def acquire(lease, role:, name:, gauges:, events:, answer_event:, timeout:)
      arguments = ["--pid=#{Process.pid}", "--role=#{role}"]
      arguments << "--name=#{name}" if name
      arguments.concat(gauges.map { |key, value| "--gauge=#{key}=#{value}" })
      arguments.concat(events.map { |event| "--event=#{event}" })
      arguments << "--answer-event=#{answer_event}" if answer_event
      Spawn.run(argv("acquire", *arguments), lease: lease.io, timeout: timeout)
    end

    # Tells the store that the application has switched captures off.
    #
    # @return [Outcome]
    def switched_off(lease, role:, name:, timeout:)
      arguments = ["--pid=#{Process.pid}", "--role=#{role}", *("--name=#{name}" if name), "--off"]
      Spawn.run(argv("acquire", *arguments), lease: lease.io, timeout: timeout)
    end

    # Stores several reports with one program.
    #
    # @param records [Records]
    # @return [Outcome]
    def put_records(lease, capture, records)
      Spawn.run(argv("put", capture, "--records"), lease: lease.io, input: records.to_s, timeout: @config.put_timeout)
    end

    # @yieldparam put [Spawn] its stdin takes the report
    # @param stdin [Boolean, Array(IO, IO)] see Spawn.open
    # @param stall [Numeric, nil] seconds after which a write fails because the put reads nothing
    # @param again [Boolean] whether an earlier attempt is discarded
    def open_put(lease, capture, report, stdin: true, stall: nil, again: false, &block)
      Spawn.open(argv("put", capture, report, *("--again" if again)), lease: lease.io, stdin: stdin, stall: stall, &block)
    end

    # @param ruby [String] what the walker is to be loaded into, one line
    # @param into [IO] takes the walker
    # @return [Outcome] status 1 if it must not be used; stderr says why
    def walker(lease, capture, ruby:, into:, timeout:)
      Spawn.run(argv("walker", capture, "--ruby=#{ruby}"), lease: lease.io, out: into, timeout: timeout)
    end

    # Records that it need not prove itself again.
    #
    # @return [Outcome]
    def walker_proven(lease, capture, ruby:)
      Spawn.run(argv("walker", capture, "--ruby=#{ruby}", "--proven"), lease: lease.io, timeout: ABORT_TIMEOUT)
    end

    # Records that it crashed.
    #
    # @return [Outcome]
    def walker_failed(lease, capture, ruby:, reason:)
      arguments = ["--ruby=#{ruby}", "--failed=#{Diagctl.one_line(reason)}"]
      Spawn.run(argv("walker", capture, *arguments), lease: lease.io, timeout: ABORT_TIMEOUT)
    end

    # @param records [Records]
    # @return [Outcome]
    def finalize(lease, capture, records)
      Spawn.run(finalize_argv(capture), lease: lease.io, input: records.to_s, timeout: @config.finalize_timeout)
    end

    # For a program that reads the records from its stdin.
    def finalize_argv(capture, lease_fd: Spawn::LEASE_FD)
      argv("finalize", capture, "--records", lease_fd: lease_fd)
    end

    # Publishes what is whole of a capture whose dump broke off. The description need not hold the lease.
    #
    # @param reason [String] the error of the reports that are missing
    # @return [Outcome]
    def break_off(lease, capture, reason)
      argv = argv("finalize", capture, "--records", "--broken-off")
      Spawn.run(argv, lease: lease.io, input: Records.new.broken_off(reason).to_s, timeout: @config.finalize_timeout)
    end

    # Notes in the staging directory which process holds the lease, so that the next poll of any process can end it when it hangs.
    # Both the worker and the dumper call this: each may be stopped or killed before it does.
    def register(capture, pid)
      Holder.write(File.join(@dir, "staging", capture), pid)
    end

    # Does the same without waiting, for a thread that is being ended.
    #
    # @param records [Records] what was made so far
    def leave(lease, capture, records, reason)
      records.broken_off(reason)
      Spawn.leave(argv("finalize", capture, "--records", "--broken-off"), lease: lease.io, input: records.to_s)
    end

    # Gives a grant back. The reason may quote the application, so it is not on the command line.
    #
    # @return [Outcome]
    def abort(lease, capture, reason)
      argv = argv("abort", capture, "--reason=-")
      Spawn.run(argv, lease: lease.io, input: Diagctl.one_line(reason), timeout: ABORT_TIMEOUT)
    end

    private

    def argv(command, *arguments, lease_fd: Spawn::LEASE_FD)
      [@binary, "--dir", @dir, command, "--lease-fd=#{lease_fd}", *arguments]
    end
  end
end
