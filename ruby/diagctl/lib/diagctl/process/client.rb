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

    # @return [Outcome]
    def acquire(lease, role:, name:, gauges:, events:, timeout:)
      arguments = ["--pid=#{Process.pid}", "--role=#{role}"]
      arguments << "--name=#{name}" if name
      arguments.concat(gauges.map { |key, value| "--gauge=#{key}=#{value}" })
      arguments.concat(events.map { |event| "--event=#{event}" })
      Spawn.run(argv("acquire", *arguments), lease: lease.io, timeout: timeout)
    end

    # @param data [String] the whole report
    # @return [String, nil] why it was not stored. When the application took the exit status, `diagctl finalize` finds out.
    def put(lease, capture, report, data)
      outcome = Spawn.run(argv("put", capture, report), lease: lease.io, input: data, timeout: @config.put_timeout)
      outcome.describe("`diagctl put`") unless outcome.success? || outcome.kind == :unknown
    end

    # @yieldparam put [Spawn] its stdin takes the report
    # @param stall [Numeric, nil] seconds after which a write fails because the put reads nothing
    # @param again [Boolean] whether an earlier attempt is discarded
    def open_put(lease, capture, report, stall: nil, again: false, &block)
      Spawn.open(argv("put", capture, report, *("--again" if again)), lease: lease.io, stdin: true, stall: stall, &block)
    end

    # @param ruby [String] what the walker is to be loaded into
    # @param into [IO] takes the walker
    # @return [Outcome] status 1 if it must not be used; stderr says why
    def walker(lease, capture, ruby:, into:, timeout:)
      Spawn.run(argv("walker", capture, "--ruby=#{Diagctl.one_line(ruby)}"), lease: lease.io, out: into, timeout: timeout)
    end

    # Records that it crashed.
    #
    # @return [Outcome]
    def walker_failed(lease, capture, ruby:, reason:)
      arguments = ["--ruby=#{Diagctl.one_line(ruby)}", "--failed=#{Diagctl.one_line(reason)}"]
      Spawn.run(argv("walker", capture, *arguments), lease: lease.io, timeout: ABORT_TIMEOUT)
    end

    # @return [Outcome]
    def finalize(lease, capture, failed:, metadata:)
      argv = finalize_argv(capture, lease_fd: Spawn::LEASE_FD, failed: failed, metadata: metadata)
      Spawn.run(argv, lease: lease.io, timeout: @config.finalize_timeout)
    end

    # @param failed [Hash{String=>String}] report => why
    # @param metadata [Hash{String=>Object}]
    def finalize_argv(capture, lease_fd:, failed:, metadata:)
      argv("finalize", capture,
        *failed.map { |report, message| "--failed=#{report}=#{Diagctl.one_line(message)}" },
        *metadata.map { |key, value| "--set=#{key}=#{Diagctl.one_line(value)}" },
        lease_fd: lease_fd)
    end

    # @return [Outcome]
    def abort(lease, capture, reason)
      Spawn.run(argv("abort", capture, "--reason=#{Diagctl.one_line(reason)}"), lease: lease.io, timeout: ABORT_TIMEOUT)
    end

    private

    def argv(command, *arguments, lease_fd: Spawn::LEASE_FD)
      [@binary, "--dir", @dir, command, "--lease-fd=#{lease_fd}", *arguments]
    end
  end
end
