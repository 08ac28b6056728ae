# frozen_string_literal: true

module Diagctl
  # The poll thread, one per process: polls, waits as long as the answer says, and watches a running dumper. No failure in it
  # reaches the application: each is logged once, and the waits grow.
  #
  # Poll thread; `start`, `stop` and `wake` are called by other threads.
  #
  # @api private
  class Poller
    # Seconds between two looks at a running dumper. Its end is logged, and a shortage of memory noticed, no later than this.
    REAP_INTERVAL = 0.1
    # Seconds that the first poll waits for an application that is booting, which includes the application's `configure`.
    READY_WAIT = 60.0
    READY_INTERVAL = 0.2
    # The kernel stamps a directory with the time of its last timer tick; ticks are at most 10 ms apart. A second request within
    # one tick does not change the stamp.
    STAMP_TICK = 0.05

    # @param ready [#call, nil] whether the application is loaded
    def initialize(agent, config:, log:, ready: nil)
      @agent = agent
      @config = config
      @log = log
      @ready = ready
      @problems = ProblemLog.new(log)
      @mutex = Mutex.new
      @woken = ConditionVariable.new
      @stopped = false
    end

    def start
      # Set from outside: the thread itself would set its name late, and Puma may read fork_safe at any time.
      @thread = Thread.new { run }
      @thread.name = "diagctl poller"
      @thread.priority = -2
      @thread.report_on_exception = false
      @thread.abort_on_exception = false
      @thread.thread_variable_set(:fork_safe, true)
    end

    # @return [Boolean] whether the thread ended in time. It is never killed, because it may hold a grant.
    def stop(timeout)
      @stopped = true
      wake
      !@thread.join(timeout).nil?
    end

    # Ends the current wait: an event was added, or another thread forked a dumper.
    def wake
      @mutex.synchronize { @woken.signal }
    rescue ThreadError
      nil # In a signal handler. The thread notices at its next look.
    end

    private

    def run
      ended = false
      await_ready
      poll if !@stopped && load_runtime
      @agent.release_dumper
      ended = true
    ensure
      revive unless ended || @stopped
    end

    # The application has ended this thread (`Thread.list.each(&:kill)`), or this process exits, which ends it for good.
    def revive
      return unless Thread.main.alive? && @agent.pid == Process.pid && !Goodbye.said?

      start
      @log.warn_once(:revived, "the application ended diagctl's poll thread; it was started again")
    rescue ThreadError
      nil # No thread can be made while this process exits.
    end

    def poll
      # The configuration is read only now: until here the application may have been changing it.
      backoff = Backoff.new(base: @config.backoff, max: [@config.backoff, @config.backoff_max].max)
      pause(rand * @config.first_poll_within)
      # A dying process has asked this thread to end. Ruby 3.1 may have discarded that at a fork.
      cycle(backoff) until @stopped || !Thread.main.alive?
    end

    # Without the libraries nothing can be polled, and a second try would not find them either.
    def load_runtime
      Runtime.load
      true
    rescue StandardError, ScriptError, NoMemoryError => e
      @log.warn_once(:load, "polling cannot start: #{e.class}: #{e.message}")
      false
    end

    # Waits for ever while the libraries are not loaded: an application that boots slowly has not set up its bundle yet.
    def await_ready
      limit = Clock.now + READY_WAIT
      until @stopped || @ready.nil? || (Runtime.loaded? && Clock.now > limit) || attempt(&@ready)
        attempt { @agent.busy? } if @agent.dumper
        pause(READY_INTERVAL)
      end
    end

    def cycle(backoff)
      return pause(REAP_INTERVAL) if @agent.dumper && @agent.busy?

      seen = baseline
      result = @agent.poll
      backoff.reset
      @problems.clear
      wait(result, seen)
    rescue Problem => e
      back_off(e, backoff)
    rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
      location = Diagctl.one_line(e.backtrace&.first)
      back_off(Problem.new(:bug, "the poll failed: #{e.class}: #{Diagctl.one_line(e.message)} at #{location}"), backoff)
    end

    # Events do not end this wait, because they would turn a broken program into a busy loop. A dumper that Diagctl.capture
    # forked in the meantime does, because it needs watching.
    def back_off(problem, backoff)
      delay = backoff.next
      @problems.add(problem, retry_in: delay)
      limit = Clock.now + delay
      until @stopped || Clock.now >= limit
        return pause(REAP_INTERVAL) if @agent.dumper

        pause(limit - Clock.now) { @agent.dumper }
      end
    end

    def wait(result, seen)
      return pause(REAP_INTERVAL) if result.retry_after.nil?

      # The poll may have made the inbox.
      @request_dirs = @agent.request_dirs
      wait = Wait.new(now: Clock.now, retry_after: result.retry_after, poll_interval: result.poll_interval, seen: seen)
      until cut_short?(wait)
        pause(wait.sleep_for(Clock.now, event: @agent.events.any?)) { cut_short?(wait) }
        return if wait.over?(Clock.now, requests_mtime)
      end
    end

    def cut_short?(wait)
      @stopped || !@agent.dumper.nil? || (@agent.events.any? && wait.event_due?(Clock.now))
    end

    # The modification time that later ones are compared with, read before the poll.
    #
    # When it cannot tell (the first poll has not found the directory, or the stamp is from this very tick), the value equals
    # no later one. That costs an additional poll, but misses no request. The stamp was made by the clock that is read here; if
    # that clock was set in between, the stamp is taken as it is.
    def baseline
      seen = requests_mtime
      seen.is_a?(Time) && (Time.now - seen).between?(0, STAMP_TICK) ? :too_fresh : seen
    end

    # Costs one stat(2), or two where there is an inbox.
    #
    # @return [Time, nil, Symbol]
    def requests_mtime
      @request_dirs ||= @agent.request_dirs or return :unknown
      requests = File.mtime(@request_dirs.first)
      return requests if @request_dirs.one?

      [requests, File.mtime(@request_dirs.last)].max
    rescue SystemCallError
      nil
    end

    # @yieldreturn [Boolean] true to skip the wait; evaluated where no wake-up can be missed
    def pause(seconds)
      @mutex.synchronize { @woken.wait(@mutex, seconds) unless @stopped || seconds <= 0 || (block_given? && yield) }
    end

    def attempt
      yield
    rescue StandardError
      false
    end
  end
end
