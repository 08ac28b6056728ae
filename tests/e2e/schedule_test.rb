# frozen_string_literal: true

require_relative "support/e2e"

# The schedule is kept on disk. Every poll is a new process, so every poll is also a restart.
class ScheduleTest < E2E::Case
  def test_timer_fires_once_and_waits_across_restarts
    configure(rule("hourly", 'timer = { every = "1h", initial_delay = "0s" }', ["gc_stat"]))
    assert poll
    3.times { refute poll }
    assert_equal 1, captures.size
    assert_operator @answer.fetch("retry_after"), :>, 0
  end

  def test_missed_ticks_of_a_timer_are_one_capture
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', ["gc_stat"]))
    assert poll
    sleep 5.2
    started = E2E.clock
    captured = Array.new(5) { poll }.count(true)
    # One for the missed ticks, and one for each second that these polls took.
    assert_includes 1..(1 + (E2E.clock - started).ceil), captured
  end

  def test_initial_delay_is_kept
    configure(rule("later", 'timer = { every = "1h", initial_delay = "1500ms" }', ["gc_stat"]))
    started = E2E.clock
    wait_until("the first tick") { poll }
    assert_operator E2E.clock - started, :>, 1.4
  end

  def test_cooldown_and_count_are_limits_with_their_own_verdicts
    memory = 'memory_usage = { of = "process", metric = "rss", above = "1MiB" }'
    configure(rule("cool", memory, ["gc_stat"], 'limits = { cooldown = "1h" }'))
    assert poll
    refute poll
    assert_equal "cooldown", @answer.fetch("verdict")
    assert_match(/cool/, @answer.values_at("reason", "rule").join(" "))

    FileUtils.rm_rf(@store)
    configure(rule("counted", memory, ["gc_stat"], 'limits = { cooldown = "0s", max_count = 2, window = "1h" }'))
    assert_equal [true, true, false], Array.new(3) { poll }
    assert_equal "throttled", @answer.fetch("verdict")
  end

  def test_for_requires_the_condition_to_hold
    configure(rule("patient", 'memory_usage = { of = "process", metric = "rss", above = "1MiB" }', ["gc_stat"], 'for = "1s"'))
    refute poll
    assert_equal "pending", @answer.fetch("verdict")
    started = E2E.clock
    wait_until("the rule fires") { poll }
    assert_operator E2E.clock - started, :>, 0.8
  end

  def test_budget_throttles_a_rule
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', ["heap_dump"]), limits: "budget_hour = 10\nbudget_day = 50")
    assert poll
    sleep 1.1
    refute poll
    assert_equal "throttled", @answer.fetch("verdict")
    assert_match(/budget/, @answer.fetch("reason"))
  end

  def test_dry_run_says_what_it_would_do_and_does_nothing
    configure(rule("dry", 'memory_usage = { of = "process", metric = "rss", above = "1MiB" }', ["gc_stat"], 'mode = "dry_run"'))
    refute poll
    refute poll
    assert_empty captures
    would = diagctl!("status", "--explain", "--json").json.fetch("events").select { |event| event["event"] == "dry_run" }
    assert_equal ["dry"], would.map { |event| event["rule"] }.uniq
    assert_match(/would capture, rss .* is above/, would.first.fetch("reason"))
    assert_operator would.first.dig("observed", "rss"), :>, would.first.dig("observed", "threshold")
    assert_match(/dry_run +dry/, diagctl!("status", "--explain").out)
  end

  def test_guard_names_itself_with_value_and_threshold
    configure(guards: 'min_free_disk = "100%"')
    diagctl!("request", "gc_stat", "--reason", "no room")
    refute poll
    assert_equal %w[guarded disk], @answer.values_at("verdict", "guard")
    assert_match(/\d.*100/, @answer.fetch("reason"))
    assert_match(/min_free_disk/, diagctl!("status", "--explain").out)
  end

  private

  # Polls once as a process that is new to the store. Returns true if it was granted a capture, which is then stored.
  def poll
    dumper = holder
    dumper.acquire
    @answer = dumper.answer
    return false unless dumper.granted?

    @answer.fetch("reports").each { |report| dumper.put(report.fetch("name"), E2E.dump("")) }
    assert dumper.finalize.ok?
    true
  ensure
    dumper.close
  end
end
