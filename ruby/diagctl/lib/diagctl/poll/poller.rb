# frozen_string_literal: true

module Diagctl
  # The poll thread: one per process. It asks, waits as long as the answer says, and looks after a running dumper.
  # Nothing that goes wrong in it reaches the host: it is told once, and the waits grow.
  #
  # @api private
  class Poller
    # Of a running dumper: how soon its end is told, and how fast memory may run out unseen.
    REAP_INTERVAL = 0.1
    # How long the first poll waits for a host that is still booting. An application's `configure` runs in there.
    READY_WAIT = 60.0
    READY_INTERVAL = 0.2
    # The kernel stamps a directory with the time of its last timer tick: 10 ms apart at most. Within one tick a second
    # request leaves the stamp of the first.
    STAMP_TICK = 0.05

    # @param ready [#call, nil] whether the host is serving
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
      # Inside the thread the name would be set late, and Puma looks at fork_safe at any time.
      @thread = Thread.new { run }
      @thread.name = "diagctl poller"
      @thread.priority = -2
      @thread.report_on_exception = false
      @thread.abort_on_exception = false
      @thread.thread_variable_set(:fork_safe, true)
    end

    # @return [Boolean] whether the thread ended in time. It is never killed: it may hold a grant.
    def stop(timeout)
      @stopped = true
      wake
      !@thread.join(timeout).nil?
    end

    # Cuts the present wait short: an event was added, or a dumper was forked by another thread.
    def wake
      @mutex.synchronize { @woken.signal }
    rescue ThreadError
      nil # In a signal handler. The thread sees it at its next look.
    end

    private

    def run
      await_ready
      poll if !@stopped && load_runtime
      @agent.release_dumper
    end

    def poll
      # From here on: until then the application may still be configuring it.
      backoff = Backoff.new(base: @config.backoff, max: [@config.backoff, @config.backoff_max].max)
      pause(rand * @config.first_poll_within)
      cycle(backoff) until @stopped
    end

    # Nothing can be polled without it, and no later try would find it.
    def load_runtime
      Runtime.load
      true
    rescue StandardError, ScriptError, NoMemoryError => e
      @log.warn_once(:load, "polling ends before it began: #{e.class}: #{e.message}")
      false
    end

    # Without a limit where nothing is loaded yet: an application that boots slowly has still to set up its bundle.
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
      where = Diagctl.one_line(e.backtrace&.first)
      back_off(Problem.new(:bug, "the poll failed: #{e.class}: #{Diagctl.one_line(e.message)} at #{where}"), backoff)
    end

    # Not woken by events: they would turn a broken binary into a busy loop. But by a dumper that Diagctl.capture forked
    # meanwhile, which has to be looked after.
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

      wait = Wait.new(now: Clock.now, retry_after: result.retry_after, poll_interval: result.poll_interval, seen: seen)
      until cut_short?(wait)
        pause(wait.sleep_for(Clock.now, event: @agent.events.any?)) { cut_short?(wait) }
        return if wait.over?(Clock.now, requests_mtime)
      end
    end

    def cut_short?(wait)
      @stopped || !@agent.dumper.nil? || (@agent.events.any? && wait.listening?(Clock.now))
    end

    # What later readings are compared with, taken before the poll. Where it cannot tell (the first poll has yet to
    # find the directory, the stamp is of this very tick) it equals no later reading, which costs one more poll and
    # not a request. The clock here is the one that made the stamp; if it stepped, the stamp is taken as it is.
    def baseline
      seen = requests_mtime
      seen.is_a?(Time) && (Time.now - seen).between?(0, STAMP_TICK) ? :too_fresh : seen
    end

    # @return [Time, nil, Symbol] one stat(2)
    def requests_mtime
      dir = @agent.requests_dir or return :unknown
      File.mtime(dir)
    rescue SystemCallError
      nil
    end

    # @yieldreturn whether not to wait at all: asked where a wake-up can no longer come too early
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
