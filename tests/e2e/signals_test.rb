# frozen_string_literal: true

require_relative "support/e2e"

# Triggers other than timers and memory levels, with a real kernel and real processes. Their evaluation is covered by table
# tests beside the code.
class SignalsTest < E2E::Case
  def test_a_gauge_and_an_event_of_the_application_fire_their_rules
    configure(rule("deep", 'gauge = { name = "queue.depth", above = 10 }', ["gc_stat"], 'limits = { cooldown = "1h" }') +
              rule("named", 'event = { name = "cache_overflow" }', ["threads"]))
    script = start_script
    assert_empty captures
    script.run("$depth = 11")
    assert_equal "deep", wait_for_captures(script).first.fetch("rule")
    script.run("Diagctl.event(:cache_overflow)")
    newest = wait_for_captures(script, 2).first
    assert_equal ["named", "event cache_overflow was named"], newest.values_at("rule", "reason")
    assert_match(/queue.depth 11 is above 10/, meta(captures.last.fetch("id")).dig("trigger", "reason"))
  end

  def test_every_rule_on_an_event_captures_once_for_each_event
    configure(rule("dump", 'event = { name = "overflow" }', %w[threads object_counts]) +
              rule("stacks", 'event = { name = "overflow" }', ["threads"]) +
              rule("limited", 'event = { name = "overflow" }', ["gc_stat"], 'limits = { max_count = 1, window = "1h" }'))
    script = start_script
    script.run("Diagctl.event(:overflow)")
    assert_equal %w[dump limited stacks], wait_for_captures(script, 3).map { |capture| capture["rule"] }.sort
    script.run("Diagctl.event(:overflow)")
    assert_equal 2, wait_for_captures(script, 5).count { |capture| capture["rule"] == "stacks" }
    wait_until("it is told that a limit refused", tell: -> { diagctl("status", "--explain").to_s }) do
      dropped = diagctl!("status", "--explain", "--json").json.fetch("events").select { |event| event["event"] == "event_dropped" }
      dropped.any? { |event| event["rule"] == "limited" && event["reason"].match?(/event overflow was named; 1 of 1 captures in 1h/) }
    end
    assert_equal 5, captures.size
  end

  # The event is refused first because another process has the lease, then because of a guard.
  def test_a_refused_event_is_captured_once_nothing_refuses_it
    named = rule("named", 'event = { name = "overflow" }', ["gc_stat"])
    configure(named)
    dumper = granted("gc_stat")
    poller = holder
    assert_equal "busy", answer(poller, "--event", "overflow")
    dumper.put("gc_stat", "{}")
    dumper.finalize
    configure(named, guards: 'min_free_disk = "100%"')
    assert_equal "guarded", answer(poller)
    configure(named)
    assert_equal "granted", answer(poller)
    assert_match(/event overflow was named/, poller.answer.fetch("reason"))
    poller.put("gc_stat", "{}")
    poller.finalize
    assert_equal "idle", answer(holder)
  end

  def test_a_growing_process_fires_growth_high_water_and_level_rules
    once = 'limits = { max_count = 1, window = "1h" }'
    configure(rule("grown", 'memory_growth = { diff = "60MiB", baseline = "boot" }', ["smaps_rollup"], once) +
              rule("levels", 'memory_usage = { metric = "anon", above = ["64MiB", "160MiB"] }', ["smaps_rollup"]) +
              rule("highest", 'high_water = { floor = "200MiB", step = "100MiB" }', ["smaps_rollup"]))
    script = start_script
    grow = ->(mb) { script.run("($kept ||= []) << 'x' * (#{mb} << 20)") }
    grow.(90)
    wait_until("growth and the first level") { captures.map { |capture| capture["rule"] }.sort == %w[grown levels] }
    grow.(100)
    wait_until("the second level and a first mark", tell: -> { diagctl("status", "--explain").to_s }) do
      captures.map { |capture| capture["rule"] }.sort == %w[grown highest levels levels]
    end
    grow.(120)
    wait_until("a second mark") { captures.count { |capture| capture["rule"] == "highest" } == 2 }
    assert_equal 5, captures.size
    assert_match(/a new maximum, from 3\d\d\.\d MiB \(last mark 2\d\d/, captures.first.fetch("reason"))
  end

  def test_a_killer_dumps_first_and_kills_after
    configure(rule("before-the-kill", 'event = { name = "worker_memory_limit" }', %w[threads heap_dump]))
    script = start_script
    script.run("warn Diagctl.capture(event: :worker_memory_limit).verdict; Process.kill(:KILL, Process.pid)")
    id = wait_for_captures(script).first.fetch("id")
    assert_includes script.log, "granted"
    refute E2E::Processes.alive?(script.pid), "it was to be killed"
    assert_heap_dump(id)
  end

  def test_an_operator_command_decides_and_a_hanging_one_affects_only_its_rule
    flag = File.join(@root, "dump-now")
    marker = "sleep 4321"
    configure(rule("asked", "exec = { command = [\"/usr/bin/test\", \"-e\", #{flag.inspect}], every = \"1s\" }", ["gc_stat"]) +
              rule("stuck", "exec = { command = [\"/bin/sh\", \"-c\", #{marker.inspect}], timeout = \"200ms\", every = \"1s\" }", ["gc_stat"]))
    script = start_script
    assert_empty captures
    File.write(flag, "")
    assert_equal "asked", wait_for_captures(script).first.fetch("rule")
    E2E::Processes.signal(:KILL, script.pid)
    wait_until("nothing of the commands is left") { E2E::Processes.descendants.none? { |process| process.argv.join(" ").include?(marker) } }
  end

  # Most polls run no command. They too report the outcome of the last run.
  def test_a_command_that_cannot_be_run_is_reported_until_it_can
    configure(rule("missing", 'exec = { command = ["/nonexistent/check"], every = "1h" }', ["gc_stat"]) +
              rule("no", 'exec = { command = ["/bin/sh", "-c", "exit 3"], every = "1h" }', ["gc_stat"]))
    2.times { holder.tap(&:acquire).close }
    assert_match(%r{^missing +exec +skipped: /nonexistent/check cannot be run: No such file}, diagctl!("status").out)
    configure(rule("no", 'exec = { command = ["/bin/sh", "-c", "exit 3"], every = "1h" }', ["gc_stat"]))
    poll = holder
    poll.acquire
    assert_equal "/bin/sh runs every 1h; the last time it ended with exit status: 3", poll.answer.fetch("reason")
  end

  # Each command runs until its timeout, in sessions of its own and without its parents.
  def test_hanging_commands_delay_a_poll_by_one_timeout_and_leave_nothing
    escape = "(setsid sleep 4322 &) ; setsid sleep 4322 & setsid setsid sleep 4322 & sleep 4322"
    rules = (1..4).map { |n| rule("stuck-#{n}", "exec = { command = [\"/bin/sh\", \"-c\", #{escape.inspect}], timeout = \"3s\", every = \"1h\" }", ["gc_stat"]) }
    configure(rules.join)
    began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    poller = holder
    assert_equal "idle", answer(poller), poller.answer
    took = Process.clock_gettime(Process::CLOCK_MONOTONIC) - began
    assert_includes 3.0...12.0, took, "one time-out, not four"
    assert_empty(E2E::Processes.descendants.select { |process| process.argv.include?("4322") })
  end

  def test_the_kernel_counts_a_hit_limit_and_a_stall_in_a_real_cgroup
    cgroup = memory_cgroup(64 << 20)
    configure(rule("hit", 'memory_event = { events = ["max"] }', ["cgroup"], 'limits = { max_count = 1, window = "1h" }') +
              rule("stalled", 'memory_pressure = { above = "0%" }', ["system"], 'limits = { max_count = 1, window = "1h" }') +
              rule("share", 'memory_usage = { of = "cgroup", above = "5%" }', ["smaps_rollup"], 'limits = { max_count = 1, window = "1h" }'))
    script = start_script(wrapper: cgroup.enter)
    wait_until("the share of the small limit") { captures.any? { |capture| capture["rule"] == "share" } }
    wait_until("a baseline of the counters") { File.read(File.join(@store, "state.json")).include?("counters") }
    big = File.join(@root, "big")
    # Page cache fills the limit again and again and is reclaimed, so that no process has to be killed for it.
    script.run("5.times { system('dd', 'if=/dev/zero', 'of=#{big}', 'bs=1M', 'count=200', err: :close) && system('dd', 'if=#{big}', 'of=/dev/null', 'bs=1M', err: :close) }")
    found = wait_until("captures of both rules", tell: -> { diagctl("status", "--explain").to_s }) do
      rules = captures.map { |capture| capture["rule"] }
      captures if rules.include?("hit") && (rules.include?("stalled") || !File.exist?("/proc/pressure/memory"))
    end
    reason = found.find { |capture| capture["rule"] == "hit" }.fetch("reason")
    assert_match(/memory.events max rose by \d+/, reason)
  ensure
    E2E::Processes.sweep
    cgroup&.remove
  end

  def test_a_configuration_that_breaks_at_run_time_leaves_the_last_good_one_in_force
    configure(rule("deep", 'gauge = { name = "queue.depth", above = 10 }', ["gc_stat"], 'limits = { cooldown = "1h" }'))
    script = start_script
    assert_path_exists File.join(@store, "config.good.toml")
    File.write(config_path, "poll_interval = 3\n")
    wait_until("the log says so", tell: script.method(:log)) { script.log.include?("poll_interval (line 1): 3 is an integer") }
    assert_match(/last good configuration/, diagctl!("status").out)
    script.run("$depth = 11")
    wait_until("the old rule fires") { File.exist?(File.join(@store, "reports")) && !Dir.empty?(File.join(@store, "reports")) }
    assert_equal 1, script.log.scan("poll_interval (line 1): 3").size, script.log
    assert_match(/last good configuration stays in force/, diagctl!("list").err)
  end

  # Two applications share a store. If one's file is broken, the other's rules must not apply to it.
  def test_the_last_good_configuration_comes_from_the_same_file
    files = %w[one two].to_h do |name|
      configure(rule(name, 'timer = { every = "1h", initial_delay = "0s" }', ["gc_stat"]))
      [name, File.join(@root, "#{name}.toml").tap { |path| File.rename(config_path, path) }]
    end
    poll = ->(name) { holder(env: env(DIAGCTL_CONFIG: files.fetch(name))).then { |one| one.acquire.tap { one.close } } }
    Dir.mkdir(@store, 0o700)
    answers = files.keys.map { |name| poll.(name).json }
    assert_equal([%w[granted one], %w[granted two]], answers.map { |answer| answer.values_at("verdict", "rule") })
    files.each_value { |path| File.write(path, "broken") }
    result = poll.("one")
    assert_equal 3, result.status, result
    assert_match(/1 problem in the configuration #{files.fetch('one')}/, result.err)
    answer = poll.("two").json
    assert_equal "two", answer.fetch("rule")
    assert_match(/last good configuration stays in force/, answer.fetch("warning"))
  end

  def test_recorded_samples_can_be_replayed_against_another_configuration
    configure(rule("deep", 'gauge = { name = "queue.depth", above = 10 }', ["gc_stat"], 'mode = "dry_run"'))
    script = start_script
    script.run("$depth = 20")
    samples = File.join(@root, "samples.jsonl")
    wait_until("some samples") { File.exist?(File.join(@store, "samples.jsonl")) && diagctl("samples").out.lines.size >= 5 }
    File.write(samples, diagctl!("samples").out)
    assert_empty captures
    configure(rule("deeper", 'gauge = { name = "queue.depth", above = 15 }', ["heap_dump"], 'limits = { cooldown = "1h" }'))
    simulation = diagctl!("simulate", "--samples", samples, "--json").json
    assert_equal ["deeper"], simulation.fetch("fired").map { |fired| fired["rule"] }
    assert_operator simulation.dig("answers", "deeper", "cooldown"), :>=, 1
    assert_match(/deeper.*one.*queue.depth 20 is above 15/, diagctl!("simulate", "--samples", samples).out)
    recorded = File.read(samples)
    fifo = File.join(@root, "fifo")
    File.mkfifo(fifo)
    writer = Thread.new { File.write(fifo, recorded) }
    [["-", recorded], ["/dev/stdin", recorded], [fifo, ""]].each do |source, stdin|
      assert_equal simulation, diagctl!("simulate", "--samples", source, "--json", stdin: stdin).json, source
    end
    writer.join
    ["/dev/null", "-"].each do |source|
      none = diagctl("simulate", "--samples", source)
      assert_equal 4, none.status, none
      assert_match(/#{source} has no samples/, none.err)
    end
    File.write(samples, "{}\nnot json\n")
    bad = diagctl("simulate", "--samples", samples)
    assert_equal 1, bad.status
    assert_match(/samples.jsonl, line 1: not a sample/, bad.err)
  end

  private

  # Returns the verdict of a poll by this process.
  def answer(dumper, *flags)
    dumper.acquire(*flags)
    dumper.answer.fetch("verdict")
  end
end
