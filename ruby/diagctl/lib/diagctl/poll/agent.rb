# frozen_string_literal: true

module Diagctl
  # One poll at a time, and the dumper that is running. Belongs to the process that made it; a forked child makes its own
  # (Diagctl.start compares pids).
  # Worker: poll thread, and any thread that calls Diagctl.capture or Diagctl.event.
  #
  # @api private
  class Agent
    # Seconds that Diagctl.capture waits while the poll thread is running `diagctl acquire`.
    TURN_WAIT = 5.0
    # Longest time between two looks at the application's switch while it is off, and the time after which the store is told
    # again if it could not be told. Seconds.
    OFF_INTERVAL = 10.0
    OFF_AGAIN = 60.0

    # @!attribute [r] dumper
    #   @return [DumperHandle, nil] the dumper while it runs, or until it is reaped
    attr_reader :pid, :dumper, :events

    def initialize(role:, name:, binary:, config:, log:, adapters:)
      @pid = Process.pid
      @role = role
      @name = name
      @binary = binary
      @config = config
      @log = log
      @capture_log = CaptureLog.new(log)
      @adapters = adapters
      @switch = ApplicationSwitch.new(config, log)
      @switch_log = SwitchLog.new(log)
      @tell_off_at = 0
      @gauges = Gauges.new(config, log, adapters)
      @events = Events.new
      @turn = Mutex.new
    end

    # @return [Array<String>, nil] the directories whose modification times change with a new request: the inbox exists only if
    #   members of the store's group may leave orders. nil before the first poll.
    def request_dirs
      return unless @client

      requests, inbox = %w[requests inbox].map { |name| File.join(@client.dir, name) }
      File.directory?(inbox) ? [requests, inbox] : [requests]
    end

    # @return [String, nil] the store. nil before the first poll
    def dir
      @client&.dir
    end

    # Polls once, and carries out the grant, if any.
    #
    # @param turn_wait [Float] seconds to wait while another thread polls
    # @param event [String, nil] an event for this poll. It does not go through `events`: the poll thread could take it from
    #   there, and the capture would then look to the caller like somebody else's
    # @param timeout [Float] seconds for each run of the program
    # @return [Result]
    # @raise [Problem]
    def poll(turn_wait: TURN_WAIT, event: nil, timeout: @config.acquire_timeout)
      handed_over = event.nil?
      take_turn(turn_wait) do
        next Result.new(verdict: "busy", reason: "a dump of this process is still running") if reap

        unless @switch.on?
          @events.take # While the application's switch is off, events are dropped, not kept for later.
          handed_over = true
          next switched_off(timeout)
        end

        @tell_off_at = 0
        with_lease(timeout) { |lease| acquire(lease, event.tap { handed_over = true }, timeout) }
      end.tap { |result| @switch_log.note(result.verdict, result.reason) }
    ensure
      @events.add(event) unless handed_over
    end

    # Reaps a dumper that has ended, and logs its end.
    #
    # @return [Boolean] whether a dumper, or a poll, is still running
    def busy?
      return true unless @turn.try_lock

      begin
        !reap.nil?
      ensure
        @turn.unlock
      end
    end

    # Hands a running dumper to a thread of Ruby's own, which reaps it. For when nobody polls any more.
    def release_dumper
      Process.detach(@dumper.pid) if @dumper
    rescue ThreadError
      nil # No thread can be made while this process exits, and then the zombie goes with it.
    end

    private

    def with_lease(timeout, &block)
      @client ||= Client.new(binary: @binary, dir: StoreDir.resolve(@binary, timeout: timeout), config: @config)
      # An operator may remove or move the directory while this process lives.
      StoreDir.create(@client.dir) unless File.directory?(@client.dir)
      Lease.open(@client.dir, &block)
    end

    # Looks at the switch often, and tells the store once, and then only as often as its answer asks for.
    def switched_off(timeout)
      tell_off(timeout) if Clock.now >= @tell_off_at
      Result.new(verdict: "disabled", reason: "switched off by the application: its `c.enabled` does not return true",
        retry_after: @off_interval, poll_interval: @off_interval)
    end

    def tell_off(timeout)
      @off_interval = OFF_INTERVAL
      @tell_off_at = Clock.now + OFF_AGAIN
      answer = with_lease(timeout) { |lease| read(@client.switched_off(lease, role: @role, name: @name, timeout: timeout)) }
      @off_interval = [answer.poll_interval, OFF_INTERVAL].min
      @tell_off_at = Clock.now + answer.retry_after
    rescue Problem
      nil # Nobody misses captures of a process that is off.
    end

    # @return [DumperHandle, nil] the dumper while it runs
    def reap
      outcome = @dumper&.reap or return @dumper
      dumper = @dumper
      @dumper = nil
      # A dumper turns into `diagctl finalize`, so an exit status is that of finalize.
      name = outcome.kind == :exited ? CaptureLog::FINALIZE : "its dumper"
      reason = @capture_log.record(dumper.grant, dumper.seconds, outcome, name: name)
      Lease.open(@client.dir) { |lease| break_off(dumper.grant, lease, reason) } if reason
      nil
    rescue Problem => e
      @log.warn(e.message)
      nil
    end

    def take_turn(wait)
      limit = Clock.now + wait
      until @turn.try_lock
        return Result.new(verdict: "busy", reason: "another poll of this process is running") if Clock.now >= limit

        sleep 0.01
      end
      begin
        yield
      ensure
        @turn.unlock
      end
    end

    def acquire(lease, event, timeout)
      events = @events.take
      started = Clock.now
      outcome = @client.acquire(lease, role: @role, name: @name, gauges: @gauges.read_all, events: events, answer_event: event,
        timeout: timeout)
      answer = read(outcome)
      # The program has recorded the events, whatever its verdict.
      events = event = nil
      carry_out(answer.grant, lease, "spawn_ms" => Clock.ms(Clock.now - started)) if answer.grant
      Result.new(verdict: answer.verdict, reason: answer.reason, capture: answer.grant&.capture, rule: answer.rule,
        retry_after: answer.retry_after, poll_interval: answer.poll_interval)
    ensure
      @events.restore([*events, *event])
    end

    # @return [Answer]
    def read(outcome)
      answered = outcome.kind == :unknown ||
        (outcome.kind == :exited && [Answer::GRANTED, Answer::NOT_GRANTED].include?(outcome.code))
      raise Problem.new(outcome.kind, outcome.describe("`diagctl acquire`")) unless answered

      answer = Answer.new(outcome.stdout, outcome.code)
      @log.warn_once([:warning, answer.warning], answer.warning) if answer.warning
      answer
    end

    def carry_out(grant, lease, costs)
      started = Clock.now
      runner = GrantRunner.new(client: @client, reports: @adapters.reports, config: @config, versions: @adapters.versions)
      outcome = runner.run(grant, lease, costs) { |dumper| @dumper = dumper }
      return if outcome.nil?

      reason = @capture_log.record(grant, Clock.now - started, outcome)
      break_off(grant, lease, reason) if reason
    ensure
      Orphans.reap
    end

    # Finished reports are published, and the reason becomes the error of the rest.
    def break_off(grant, lease, reason)
      @capture_log.salvaged(grant, @client.break_off(lease, grant.capture, reason))
    end
  end
end
