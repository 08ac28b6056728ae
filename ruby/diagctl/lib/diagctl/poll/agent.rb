# frozen_string_literal: true

module Diagctl
  # What a poll or a capture came to.
  #
  # `verdict` is one of acquire's, or `failed` when diagctl itself could not do its work. `capture` is the id when
  # granted.
  Result = Struct.new(:verdict, :reason, :capture, :retry_after, :poll_interval, keyword_init: true) do
    def granted?
      verdict == "granted"
    end
  end

  # One process's diagctl: takes polls one at a time, and knows the dumper that is running. Belongs to the process
  # that made it; a forked child makes its own (Diagctl.start compares pids).
  # Poll thread, and any thread that calls Diagctl.capture or Diagctl.event.
  #
  # @api private
  class Agent
    # For Diagctl.capture while the poll thread is in `acquire`.
    TURN_WAIT = 5.0
    OFF_INTERVAL = 10.0
    FINALIZE = "`diagctl finalize`"

    attr_reader :pid, :dumper, :events

    def initialize(role:, name:, binary:, config:, log:, adapters:)
      @pid = Process.pid
      @role = role
      @name = name
      @binary = binary
      @config = config
      @log = log
      @adapters = adapters
      @gauges = Gauges.new(config, log, adapters)
      @events = Events.new
      @turn = Mutex.new
    end

    # @return [String, nil] the directory whose modification time tells of a new request; nil before the first poll
    def requests_dir
      @requests_dir ||= @client && File.join(@client.dir, "requests")
    end

    # One poll, and the dump if it is granted.
    #
    # @param event [String, nil] named at this very poll: the poll thread would take one that waits, and its dump
    #   would look to the caller like somebody else's
    # @param timeout [Float] seconds for each run of the binary until it has answered
    # @return [Result]
    # @raise [Problem]
    def poll(wait: TURN_WAIT, event: nil, timeout: @config.acquire_timeout)
      heard = event.nil?
      take_turn(wait) do
        next Result.new(verdict: "busy", reason: "a dump of this process is still running") if reap

        unless @gauges.enabled?
          heard = @events.take # They are not for later: who is off does not collect.
          reason = "switched off by the application (enabled)"
          next Result.new(verdict: "disabled", reason: reason, retry_after: OFF_INTERVAL, poll_interval: OFF_INTERVAL)
        end

        @client ||= Client.new(binary: @binary, dir: StoreDir.resolve(@binary, timeout: timeout), config: @config)
        # An operator may remove it, or move it away, while this process lives.
        StoreDir.create(@client.dir) unless File.directory?(@client.dir)
        Lease.open(@client.dir) { |lease| acquire(lease, event.tap { heard = true }, timeout) }
      end
    ensure
      @events.add(event) unless heard
    end

    # Whether a dumper still runs; one that ended is reaped and told to the log.
    def busy?
      return true unless @turn.try_lock

      begin
        !reap.nil?
      ensure
        @turn.unlock
      end
    end

    # Nobody polls any more: a thread of Ruby's own reaps a dumper that still runs.
    def release_dumper
      Process.detach(@dumper.pid) if @dumper
    rescue ThreadError
      nil # No thread can be made while this process ends; then its zombie is not ours for long.
    end

    private

    # @return [DumperHandle, nil] the dumper while it runs
    def reap
      outcome = @dumper&.reap or return @dumper
      dumper = @dumper
      @dumper = nil
      who = outcome.kind == :exited ? FINALIZE : "its dumper"
      log_outcome(dumper, dumper.seconds, outcome, who) do |reason|
        Lease.open(@client.dir) { |lease| @client.abort(lease, dumper.capture, reason) }
      end
      nil
    rescue Problem => e
      @log.warn(e.message)
      nil
    end

    def take_turn(wait)
      limit = Clock.now + wait
      until @turn.try_lock
        return Result.new(verdict: "busy", reason: "another poll of this process is under way") if Clock.now >= limit

        sleep 0.01
      end
      begin
        yield
      ensure
        @turn.unlock
      end
    end

    def acquire(lease, event, timeout)
      events = @events.take | [event].compact
      started = Clock.now
      outcome = @client.acquire(lease, role: @role, name: @name, gauges: @gauges.read_all, events: events, timeout: timeout)
      answer = read(outcome)
      # From here on diagctl remembers them, whatever it answered.
      events = []
      dump(answer, lease, "spawn_ms" => Clock.ms(Clock.now - started)) if answer.granted?
      Result.new(verdict: answer.verdict, reason: answer.reason, capture: answer.capture,
        retry_after: answer.retry_after, poll_interval: answer.poll_interval)
    ensure
      @events.restore(events) if events&.any?
    end

    def read(outcome)
      answered = outcome.kind == :unknown ||
        (outcome.kind == :exited && [Answer::GRANTED, Answer::NOT_GRANTED].include?(outcome.code))
      raise Problem.new(outcome.kind, outcome.describe("`diagctl acquire`")) unless answered

      answer = Answer.new(outcome.stdout, outcome.code)
      @log.warn_once([:warning, answer.warning], answer.warning) if answer.warning
      answer
    end

    def dump(answer, lease, costs)
      started = Clock.now
      runner = GrantRunner.new(client: @client, reports: @adapters.reports, config: @config, versions: @adapters.versions)
      outcome = runner.run(answer, lease, costs) { |dumper| @dumper = dumper }
      return if outcome.nil?

      log_outcome(answer, Clock.now - started, outcome, FINALIZE) { |reason| @client.abort(lease, answer.capture, reason) }
    end

    # @param grant [Answer, DumperHandle]
    # @param who [String] what ended
    # @yieldparam reason [String] what nobody has told the store: the next grant would clear away what is left without
    #   knowing why
    def log_outcome(grant, seconds, outcome, who)
      stored = outcome.kind == :exited && [0, 5].include?(outcome.code)
      # Where the host took its status: it prints the capture once that is stored.
      stored ||= outcome.kind == :unknown && outcome.stdout.include?(grant.capture)
      unless stored
        ended = outcome.describe(who)
        @log.warn("capture #{grant.capture} (#{grant.rule}): #{ended}")
        return yield ended
      end

      partly = " in part, see `diagctl show #{grant.capture}`" if outcome.code == 5
      @log.info("capture #{grant.capture} (#{grant.rule}) stored#{partly} after #{seconds.round(1)} s")
    end
  end
end
