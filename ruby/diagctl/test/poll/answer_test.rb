# frozen_string_literal: true

require_relative "../helper"

class AnswerTest < Minitest::Test
  GRANT = { "schema" => 1, "verdict" => "granted", "reason" => "r", "retry_after" => 1, "poll_interval" => 1,
            "capture" => "20261122T101530123Z-7f3a9c2e", "dir" => "/x", "snapshot" => "fork", "deadline" => 600,
            "rule" => "heap", "reports" => [{ "name" => "threads", "producer" => "inline" }] }.freeze

  def answer(changes = {}, code: 0)
    Diagctl::Answer.new(JSON.generate(GRANT.merge(changes)), code)
  end

  def test_a_grant_is_parsed
    read = answer({ "reports" => [{ "name" => "heap_dump", "producer" => "snapshot", "options" => { "full" => true } }] })
    assert_equal "granted", read.verdict
    assert_equal ["heap_dump", "snapshot", { "full" => true }], read.grant.reports.first.to_a
    assert_equal 600.0, read.grant.deadline
  end

  def test_every_other_verdict_has_no_grant
    (Diagctl::Answer::VERDICTS - ["granted"]).each do |verdict|
      read = Diagctl::Answer.new(JSON.generate(schema: 1, verdict: verdict, reason: "no", retry_after: 0.5, poll_interval: 2), 10)
      assert_equal [verdict, nil], [read.verdict, read.grant]
    end
  end

  def test_unknown_fields_are_ignored
    refute_nil answer({ "something_new" => [1] }).grant
  end

  def test_garbage_is_rejected_with_the_reason
    {
      { "schema" => 2 } => /schema is 2.*update the gem/,
      { "verdict" => "maybe" } => /"maybe"/,
      { "verdict" => "idle" } => /contradicts exit status 0/,
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
