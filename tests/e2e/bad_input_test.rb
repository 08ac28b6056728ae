# frozen_string_literal: true

require_relative "support/e2e"

# Bad input leads to the right exit status and a helpful message, and nothing is lost or half-written.
class BadInputTest < E2E::Case
  def test_all_problems_of_a_configuration_at_once
    File.write(config_path, <<~TOML)
      poll_interval = "10 parsecs"
      colour = "red"
      [guards]
      min_free_disk = "much"
      [retention]
      max_age = "14 fortnights"
      max_ages = "14d"
      [[rules]]
      name = "bad"
      reports = ["heap_dmup"]
      trigger.timer = { evry = "2h" }
    TOML
    result = diagctl("config", "check")
    assert_equal 3, result.status, result
    %w[poll_interval colour guards.min_free_disk retention.max_age retention.max_ages heap_dmup evry].each do |word|
      assert_includes result.out + result.err, word
    end
    assert_includes result.out + result.err, "heap_dump", "a hint"
  end

  # Doubts are reported together with problems. Alone, they are also reported by `status` and stop nothing.
  def test_values_that_cannot_work_are_reported_and_stop_no_capture
    questionable = "[guards]\nmin_free_disk = \"1%\"\nmax_rss = \"0B\"\n" +
               rule("r", 'memory_usage = { above = "1000TiB" }', ["gc_stat"]) +
               rule("g", 'gauge = { name = "puma.backlgo", above = 1 }', ["gc_stat"])
    File.write(config_path, questionable)
    assert_equal 10, holder.acquire("--gauge", "puma.backlog=1").status
    expected = [/guards.max_rss: every process is larger than 0 B/, /rules\[0\].trigger.memory_usage.above: 1000.0 TiB is more than/,
                /rules\[1\].trigger.gauge.name: no process has reported a gauge "puma.backlgo" lately \(seen: puma.backlog\)/]
    check = diagctl("config", "check")
    assert_equal 3, check.status, check
    told = diagctl!("status").out
    with_line = ->(message) { Regexp.new(message.source.sub(": ", ' \(line \d+\): ')) }
    expected.each do |message|
      assert_match with_line[message], check.err
      assert_match(/^warning +#{message}/, told)
    end
    json = diagctl("config", "check", "--json").json
    assert_equal [false, true, 3, 3], [json["ok"], json["valid"], json["problems"].size, json["warnings"].size]
    assert_match(/\A\S*diagctl: 3 warnings about the configuration \S+, which is valid/, check.err)
    assert_equal 1, diagctl("config", "check", "--elsewhere", "--json").json.fetch("problems").size
    store_capture
    File.write(config_path, "#{questionable}sample = \"0%\"\n")
    both = diagctl("config", "check")
    (expected.first(2) + [/rules\[1\].sample: 0%/]).each { |message| assert_match with_line[message], both.err }
    assert_match(/1 problem in the configuration.*and 3 warnings:/m, both.err)
  end

  # Each bad value, with the reason for its rejection and the advice.
  BAD_VALUES = {
    %w[list --since 5] => /'5' for '--since.*unit is missing; write 5s/,
    %w[list --since -5m] => /'-5m' for '--since.*cannot be negative; use a value like 10m/,
    %w[samples --since soon] => /'soon'.*neither a duration nor a time.*use a duration like/,
    %w[pause --for -2h] => /'-2h'.*cannot be negative/,
    %w[pause --for 0s] => /'0s'.*longer than zero; use a value like 30m/,
    %w[pause --for 200y] => /'200y'.*longer than 100 years/,
    %w[request gc_stat --reason x --expires 0] => /'0' for '--expires.*longer than zero/,
    %w[request gc_stat --reason x --expires -1s] => /'-1s'.*cannot be negative/,
    %w[request gc_stat --reason x --pid -4] => /'-4' for '--pid.*not in 0/,
    %w[list -n -1] => /'-1' for '--limit/,
    %w[list --limit 99999999999999999999] => /'99999999999999999999' for '--limit.*too large/,
    %w[help nothing] => /no command or topic "nothing"/,
    %w[help config nothing] => /no command or topic "config nothing"/,
    %w[lst] => /'lst'.*'list'/m
  }.freeze

  def test_a_bad_value_on_the_command_line_is_named_with_advice
    store_capture
    before = Dir.glob("**/*", base: @store).sort
    BAD_VALUES.each do |argv, expected|
      result = diagctl(*argv)
      assert_equal 2, result.status, result
      assert_match expected, result.err, result
      assert_empty result.out, result
    end
    assert_equal before, Dir.glob("**/*", base: @store).sort
    assert_match(/Report every problem and warning/, diagctl!("help", "config", "check").out)
    nothing = diagctl("show", "latest:")
    assert_equal 4, nothing.status, nothing
    assert_match(/names no report/, nothing.err)
    assert_equal 3, diagctl("list", env: env(DIAGCTL_ENABLED: "\xff")).status
  end

  def test_a_missing_group_is_reported_beforehand
    configure(head: 'group = "no-such-group"')
    check = diagctl("config", "check")
    assert_equal 3, check.status, check
    assert_match(/group \(line \d+\): there is no group "no-such-group"/, check.err)
    assert_match(/config.rules +group: there is no group/, diagctl("doctor").out)
    assert diagctl("config", "check", "--elsewhere").ok?
    refute_path_exists @store
    assert_equal 3, diagctl("request", "gc_stat", "--reason", "x").status
  end

  # Commands that only need the store say what is wrong, and use the last good configuration.
  def test_a_configuration_that_breaks_stops_only_commands_that_need_it
    server = puma
    diagctl!("request", "gc_stat", "--reason", "before", "--wait")
    File.write(config_path, "polling = 3\n")
    id = captures.first.fetch("id")
    [["list"], ["show", "latest"], ["fetch", "latest:gc_stat", "-o", "-"], ["pin", id], ["unpin", id], ["gc"], ["verify", "--all"],
     ["samples"], ["pause"], ["resume"], ["events"], ["request", "gc_stat", "--reason", "now", "--wait"], ["rm", id]].each do |argv|
      result = diagctl!(*argv)
      assert_match(/polling: unknown key.*the last good configuration stays in force/, result.err, argv.first)
    end
    assert_match(/^config .*polling: unknown key/, diagctl!("status").out)
    [["run", "--", "true"], ["simulate", "--samples", "-"], ["config", "check"]].each { |argv| assert_equal 3, diagctl(*argv).status, argv.first }
    server.stop
  end

  def test_bad_configuration_without_a_good_one_stops_polls_but_not_puma
    server = puma
    File.write(config_path, "polling = 3\n")
    FileUtils.rm_rf(@store)
    result = holder.acquire
    assert_equal 3, result.status, result
    assert_match(/polling/, result.err)
    wait_until("the log says so") { server.diagctl_lines.any? }
    assert server.get("/")
    assert_equal 1, server.diagctl_lines.size, server.log
  end

  def test_missing_configuration_file_is_named
    result = diagctl("list", env: env(DIAGCTL_CONFIG: "#{@root}/nowhere.toml"))
    assert_equal 3, result.status, result
    assert_includes result.err, "nowhere.toml"
  end

  def test_configuration_from_config_init_is_valid
    File.write(config_path, diagctl!("config", "init").out)
    diagctl!("config", "check")
    diagctl!("config", "show")
  end

  def test_usage_errors
    [%w[lst], %w[list --colour], %w[fetch], %w[acquire], %w[pause --for soon], %w[request nothing_such --reason x]].each do |argv|
      result = diagctl(*argv)
      assert_equal 2, result.status, result
      refute_empty result.err
      assert_empty result.out
    end
    assert_match(/heap_dump/, diagctl("request", "heap_dmup", "--reason", "x").err, "a hint")
  end

  def test_nothing_matched
    store_capture
    [%w[show 2001], %w[fetch 2001], %w[fetch latest:heap_dump], %w[rm 2001], %w[pin 2001]].each do |argv|
      assert_equal 4, diagctl(*argv).status, argv
    end
  end
end
