# frozen_string_literal: true

require_relative "../helper"

class SwitchTest < Minitest::Test
  def switch(value, config: nil, file: "/nonexistent")
    Diagctl::Switch.new(env: { "DIAGCTL_ENABLED" => value, "DIAGCTL_CONFIG" => config }.compact, config_file: file)
  end

  def test_the_table
    {
      "1" => true, "true" => true, "0" => false, "false" => false, "yes" => false, "TRUE" => false, nil => false, "" => false
    }.each { |value, on| assert_equal on, switch(value).on?, value.inspect }
  end

  def test_unset_is_on_only_where_a_configuration_is
    assert_predicate switch(nil, config: "/some.toml"), :on?
    assert_predicate switch(nil, file: __FILE__), :on?
    refute_predicate switch("0", config: "/some.toml", file: __FILE__), :on?
  end

  def test_another_value_is_named
    assert_match(/"yes".*1, true, 0 nor false/, switch("yes").warning)
    assert_nil switch("0").warning
    assert_nil switch(nil).warning
  end
end

class BinaryTest < Minitest::Test
  include Sandbox

  def test_order_is_override_own_path
    one = binary("true")
    two = File.join(@dir, "own")
    FileUtils.cp(one, two)
    find = ->(env, own = "/nonexistent") { Diagctl::Binary.new(env: env, own: own).path }
    assert_equal two, find.call({ "DIAGCTL_BIN" => two, "PATH" => @dir })
    assert_equal two, find.call({ "PATH" => @dir }, two)
    assert_equal one, find.call({ "PATH" => "/nonexistent:#{@dir}" })
    assert_nil find.call({ "PATH" => "/nonexistent" })
  end

  # `ENV PATH=~/bin:$PATH` of a Dockerfile is taken literally, and there may be no home to look for.
  def test_a_tilde_in_path_is_no_home_and_ends_no_search
    one = binary("true")
    assert_equal one, Diagctl::Binary.new(env: { "PATH" => "~nobody-of-that-name/bin:~/bin:#{@dir}" }, own: "/x").path
  end

  def test_a_wrong_override_is_named_and_not_papered_over
    found = Diagctl::Binary.new(env: { "DIAGCTL_BIN" => "#{@dir}/nope", "PATH" => @dir.tap { binary("true") } }, own: "/x")
    assert_nil found.path
    assert_match(%r{DIAGCTL_BIN=.*/nope is not an executable file.*hint}, found.warning)
  end
end

class BackoffTest < Minitest::Test
  def test_doubles_up_to_the_limit_and_starts_anew
    backoff = Diagctl::Backoff.new(base: 10, max: 600)
    assert_equal [10, 20, 40, 80, 160, 320, 600, 600], Array.new(8) { backoff.next }
    backoff.reset
    assert_equal 10, backoff.next
  end
end

class WaitTest < Minitest::Test
  def wait(retry_after, poll_interval = 10.0, seen: :before)
    Diagctl::Wait.new(now: 100.0, retry_after: retry_after, poll_interval: poll_interval, seen: seen)
  end

  def test_sleeps_in_steps_of_the_poll_interval
    assert_in_delta 10.0, wait(60).sleep_for(100.0)
    assert_in_delta 5.0, wait(60).sleep_for(155.0)
    assert_in_delta 3.0, wait(3).sleep_for(100.0)
    assert_equal 0, wait(3).sleep_for(104.0)
  end

  def test_over_when_due_or_when_requests_changed
    refute wait(60).over?(159.0, :before)
    assert wait(60).over?(160.0, :before)
    assert wait(60).over?(101.0, :after)
  end

  def test_an_event_ends_the_wait_some_time_after_the_answer_only
    wait = wait(60)
    assert_in_delta 1.0, wait.sleep_for(100.0, event: true)
    refute wait.listening?(100.9)
    assert wait.listening?(101.0)
    assert_equal 0, wait.sleep_for(101.5, event: true)
    assert_in_delta 0.3, wait(0.3).sleep_for(100.0, event: true)
  end

  def test_no_answer_makes_it_spin_or_sleep_for_ever
    assert_in_delta 0.02, wait(0, 0).sleep_for(100.0)
    assert wait(1e12).over?(100.0 + 3600, :before)
  end
end

class AnswerTest < Minitest::Test
  GRANT = { "schema" => 1, "verdict" => "granted", "reason" => "r", "retry_after" => 1, "poll_interval" => 1,
            "capture" => "20261122T101530123Z-7f3a9c2e", "dir" => "/x", "snapshot" => "fork", "deadline" => 600,
            "rule" => "heap", "reports" => [{ "name" => "threads", "producer" => "inline" }] }.freeze

  def answer(changes = {}, code: 0)
    Diagctl::Answer.new(JSON.generate(GRANT.merge(changes)), code)
  end

  def test_a_grant_is_read
    read = answer({ "reports" => [{ "name" => "heap_dump", "producer" => "snapshot", "options" => { "full" => true } }] })
    assert_predicate read, :granted?
    assert_equal ["heap_dump", "snapshot", { "full" => true }], read.reports.first.to_a
    assert_equal 600.0, read.deadline
  end

  def test_every_other_verdict_is_read_without_a_grant
    (Diagctl::Answer::VERDICTS - ["granted"]).each do |verdict|
      read = Diagctl::Answer.new(JSON.generate(schema: 1, verdict: verdict, reason: "no", retry_after: 0.5, poll_interval: 2), 10)
      refute_predicate read, :granted?
    end
  end

  def test_unknown_fields_are_ignored
    assert_predicate answer({ "something_new" => [1] }), :granted?
  end

  def test_garbage_is_refused_and_named
    {
      { "schema" => 2 } => /schema is 2.*update the gem/,
      { "verdict" => "maybe" } => /"maybe"/,
      { "verdict" => "idle" } => /does not go with exit status 0/,
      { "retry_after" => "soon" } => /retry_after "soon"/,
      { "retry_after" => -1 } => /retry_after -1/,
      { "capture" => "../../etc" } => /not an id/,
      { "capture" => "--dir" } => /not an id/,
      { "capture" => nil } => /not an id/,
      { "snapshot" => "vfork" } => /snapshot "vfork"/,
      { "deadline" => 0 } => /deadline 0/,
      { "reports" => nil } => /not a list/,
      { "reports" => [{ "name" => 1 }] } => /a report is/
    }.each do |changes, message|
      error = assert_raises(Diagctl::Problem, changes.inspect) { answer(changes) }
      assert_match message, error.message
    end
    ["", "[]", "null", "\x00\xff", "Segmentation fault"].each do |text|
      assert_raises(Diagctl::Problem, text.inspect) { Diagctl::Answer.new(text, 10) }
    end
    assert_raises(Diagctl::Problem) { answer({}, code: 10) }
  end
end

class TroubleTest < Minitest::Test
  include Sandbox

  def test_each_problem_is_told_once_until_it_ends
    problems = Diagctl::ProblemLog.new(@log)
    one = Diagctl::Problem.new(:exited, "pid 12 failed")
    same = Diagctl::Problem.new(:exited, "pid 99 failed")
    other = Diagctl::Problem.new(:timeout, "hangs")
    [one, same, other, one].each { |problem| problems.add(problem, retry_in: 10.0) }
    problems.clear
    problems.clear
    problems.add(one, retry_in: 10.0)
    assert_equal ["pid 12 failed; trying", "hangs; trying again in", "polling works again", "pid 12 failed; trying"],
      @logger.lines.zip([21, 22, 19, 21]).map { |line, length| line[0, length] }
  end
end

class LogTest < Minitest::Test
  include Sandbox

  # Keys can come from the application: an event that is named after a record, say.
  def test_what_is_said_once_does_not_grow_without_end
    2_000.times { |i| @log.warn_once([:event, i], "event \"record #{i}\" is not a name") }
    assert_equal Diagctl::Log::KEYS, @logger.lines.size
    refute @log.warn_once(:other, "more")
  end
end

class OneLineTest < Minitest::Test
  def test_text_of_others_becomes_one_bounded_printable_line
    assert_equal "a b ? c", Diagctl.one_line("a\n\tb \xff\x00\u0085c".b)
    assert_equal 401, Diagctl.one_line("x" * 10_000).length
  end
end
