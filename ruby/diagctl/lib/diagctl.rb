# frozen_string_literal: true

require_relative "diagctl/version"
require_relative "diagctl/process/errors"
require_relative "diagctl/process/clock"
require_relative "diagctl/process/log_writer"
require_relative "diagctl/process/log"
require_relative "diagctl/reports"
require_relative "diagctl/process/configuration"
require_relative "diagctl/process/switch"
require_relative "diagctl/process/binary"
require_relative "diagctl/process/callback_thread"
require_relative "diagctl/process/callback"
require_relative "diagctl/process/libc"
require_relative "diagctl/process/posix_spawn"
require_relative "diagctl/process/process_handle"
require_relative "diagctl/process/children"
require_relative "diagctl/process/orphans"
require_relative "diagctl/process/outcome"
require_relative "diagctl/process/pipes"
require_relative "diagctl/process/spawn"
require_relative "diagctl/process/store_dir"
require_relative "diagctl/process/client"
require_relative "diagctl/process/adapters"
require_relative "diagctl/process/work"
require_relative "diagctl/dump/grant"
require_relative "diagctl/dump/lease"
require_relative "diagctl/dump/holder"
require_relative "diagctl/dump/records"
require_relative "diagctl/process/ending"
require_relative "diagctl/process/goodbye"
require_relative "diagctl/dump/fork_guard"
require_relative "diagctl/dump/fork_point"
require_relative "diagctl/dump/inline_collector"
require_relative "diagctl/dump/put_watchdog"
require_relative "diagctl/dump/walk"
require_relative "diagctl/dump/walker"
require_relative "diagctl/dump/walker_process"
require_relative "diagctl/dump/thread_stacks"
require_relative "diagctl/dump/walker_sample"
require_relative "diagctl/dump/walker_source"
require_relative "diagctl/dump/capture_writer"
require_relative "diagctl/dump/headroom"
require_relative "diagctl/dump/isolation"
require_relative "diagctl/dump/dumper_process"
require_relative "diagctl/dump/dumper_handle"
require_relative "diagctl/dump/grant_runner"
require_relative "diagctl/dump/capture_log"
require_relative "diagctl/process/runtime"
require_relative "diagctl/poll/backoff"
require_relative "diagctl/poll/problem_log"
require_relative "diagctl/poll/wait"
require_relative "diagctl/poll/fields"
require_relative "diagctl/poll/answer"
require_relative "diagctl/poll/result"
require_relative "diagctl/poll/events"
require_relative "diagctl/poll/application_switch"
require_relative "diagctl/poll/switch_log"
require_relative "diagctl/poll/gauges"
require_relative "diagctl/poll/agent"
require_relative "diagctl/poll/poller"

# Diagnostic reports from this process, made when the operator's rules allow it.
#
# Nothing here raises into the application, except ArgumentError from a wrong declaration (`configure`, `report`).
module Diagctl
  EVENT = /\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}\z/
  LABEL = /\A[^-[:cntrl:]][^[:cntrl:]]*\z/
  # Bytes of UTF-8. `diagctl acquire` refuses anything longer or in another encoding, so every poll would fail.
  LABEL_BYTES = 128

  @configuration = Configuration.new
  @work = Work.new
  @adapters = Adapters.new(@configuration, counts: [@work.method(:counts)])
  @log = Log.new

  class << self
    # @api private
    attr_reader :configuration, :adapters, :log, :work

    # @yieldparam c [Configuration]
    # @raise [ArgumentError] with the name, the wrong value and a hint
    def configure
      yield @configuration
    end

    # Declares a report of the application.
    #
    #   Diagctl.report(:cache) { |io| io.write(Cache.stats.to_json) }
    def report(name, &block)
      @configuration.report(name, &block)
    end

    # Tells whether a poll thread would start in this process, and logs once why not. Starts nothing, so a Puma master may call it.
    #
    # @api private
    def wanted?
      switch = Switch.new
      @log.warn_once(:switch, switch.warning) if switch.warning
      @log.info_once(:switch, switch.reason) if switch.reason
      return false unless switch.on?

      binary = Binary.new
      @log.warn_once(:binary, binary.warning) if binary.warning
      @binary = binary.path
      !@binary.nil?
    end

    # Starts the poll thread of this process. A second call in the same process has no effect.
    #
    # @param role [String] matched by the operator's rules, for example "puma"
    # @param name [String, nil] tells processes of one role apart, for example "worker-0"
    # @param ready [#call, nil] returns true once the application is loaded. Until then diagctl does not poll and loads no other
    #   gem, because the application has not set up its bundle. If diagctl's libraries are already loaded, it starts polling
    #   after one minute in any case
    # @return [Boolean] whether the thread runs
    def start(role: "ruby", name: nil, ready: nil)
      return true if started?
      return false unless label?("role", role) && (name.nil? || label?("name", name)) && wanted?

      Runtime.load unless ready
      ForkGuard.install
      Children.install
      Children.inherited.each { |pid| Process.detach(pid) }
      agent = Agent.new(role: role, name: name, binary: @binary, config: @configuration, log: @log, adapters: @adapters)
      poller = Poller.new(agent, config: @configuration, log: @log, ready: ready)
      poller.start
      Goodbye.install(agent)
      # Assigned last, so that `started?` is true only when the thread runs.
      @poller = poller
      @agent = agent
      true
    rescue StandardError, ScriptError => e
      @log.warn_once(:start, "not started: #{e.class}: #{e.message}")
      false
    end

    # Ends the poll thread. A running dumper is not affected.
    #
    # @return [Boolean] whether the thread ended in time
    def stop(timeout: 5)
      return true unless started?

      poller = @poller
      @agent = @poller = nil
      poller.stop(timeout).tap { Callback.release }
    rescue StandardError => e
      @log.warn("not stopped: #{e.class}: #{e.message}")
      false
    end

    # Compares pids, because a forked child inherits the objects but not the thread.
    def started?
      !@agent.nil? && @agent.pid == Process.pid
    end

    # Names an event for the next poll, and brings that poll forward. The operator's rules decide what the event means.
    # May be called from a signal handler.
    #
    # @return [Boolean] whether a poll will receive the event
    def event(name)
      return false unless started? && event?(name)

      # Another thread may call `stop` at this moment.
      @poller&.wake if @agent&.events&.add(name.to_s)
      true
    end

    # Names the work of a block. If the process dies meanwhile, `diagctl deaths` says so: polls record the names in progress. In Rails
    # the actions of controllers are named already, and the jobs in Sidekiq.
    #
    #   Diagctl.working_on("Import#csv") { import }
    #
    # @param name [String, Symbol] a name in the code; never a path, an id, or a value: up to 80 letters, digits and _ . : # / * - ( ) { }
    # @return the value of the block, whatever the name is
    def working_on(name)
      before = @work.start(name)
      yield
    ensure
      @work.finish(before)
    end

    # Polls at once, on the calling thread, and carries out the capture if it is granted. Returns right after the fork: the dumper
    # needs neither the caller nor this process any more.
    #
    # @return [Result]
    def capture(event: nil)
      return Result.new(verdict: "failed", reason: "#{event.inspect} is not a valid event name") unless event.nil? || event?(event)
      return Result.new(verdict: "disabled", reason: "diagctl is not started in this process") unless started?

      Runtime.load
      @agent.poll(event: event&.to_s, timeout: @configuration.capture_timeout).tap { @poller&.wake }
    rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
      Result.new(verdict: "failed", reason: Diagctl.one_line(e.message))
    end

    # Says in the store that something ends a process on purpose, so that `diagctl deaths` names it. For worker killers: before the
    # signal, in the process itself, or in its parent (which needs DIAGCTL_DIR in its environment).
    #
    #   PumaWorkerKiller.pre_term = ->(worker) { Diagctl.announce_kill("puma_worker_killer", pid: worker.pid) }
    #
    # @param by [String, Symbol] the name of the killer
    # @return [Boolean] whether it is noted
    def announce_kill(by, pid: Process.pid)
      return false unless event?(by) && pid.is_a?(Integer)

      dir = (@agent.dir if started?) || ENV["DIAGCTL_DIR"]
      return false if dir.to_s.empty?

      Ending.note(dir, by: "killer", pid: pid, start_ticks: Ending.start_ticks(pid), killer: by.to_s)
    end

    private

    # Matches bytes, because a match of characters raises when the string's encoding is invalid.
    def event?(name)
      ok = (name.is_a?(Symbol) || name.is_a?(String)) && EVENT.match?(name.to_s.b)
      @log.warn_once([:event, name.to_s], "event #{name.inspect} is not a valid name; use letters, digits and _ . : -") unless ok
      ok
    end

    def label?(what, value)
      text = value.is_a?(String) ? value.dup.force_encoding(Encoding::UTF_8) : ""
      ok = text.valid_encoding? && text.bytesize <= LABEL_BYTES && LABEL.match?(text)
      hint = "use at most #{LABEL_BYTES} bytes of text that does not begin with -"
      @log.warn_once([what, value.to_s], "#{what} #{value.inspect} is not valid; #{hint}") unless ok
      ok
    end
  end
end

require_relative "diagctl/railtie" if defined?(Rails::Railtie)
