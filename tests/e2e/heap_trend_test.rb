# frozen_string_literal: true

require_relative "support/e2e"

# The trend over heap summaries of a real process that keeps more and more of one class.
class HeapTrendTest < E2E::Case
  def setup
    super
    @script = start_script
    @script.run("class Session; def initialize(token) = @token = token; end; $sessions = []")
  end

  def test_a_class_that_grows_in_each_summary_is_a_leak_and_garbage_is_none
    4.times do
      @script.run("$sessions.concat(Array.new(20_000) { Session.new(1) }); Array.new(50_000) { [] }; 5.times { GC.start }")
      summarize
    end
    trend = JSON.parse(diagctl!("heap", "trend", "--pid", @script.pid.to_s, "--json").out)
    assert_equal ["leak", true, 4], [trend["verdict"], trend["old_only"], trend["summaries"].length]
    leak = trend["groups"].first
    assert_equal ["Session", true, true], leak.values_at("name", "always_grows", "leaks")
    assert_equal [20_000, 40_000, 60_000, 80_000], leak["counts"]
    assert_match(/\ASession grows in each of 4 summaries: from \S+ \S+ to \S+ \S+;/, trend["because"].first)
    shown = diagctl!("heap", "trend").out
    assert_match(/^▁▃▅█ .* yes +Session$/, shown)
    assert(shown.lines.all? { |line| line.chomp.length <= 80 }, shown)
  end

  def test_fewer_than_three_summaries_make_no_trend
    none = diagctl("heap", "trend")
    assert_equal [4, ""], [none.status, none.out]
    2.times { summarize }
    two = diagctl("heap", "trend")
    assert_equal 4, two.status
    assert_match(/a trend needs 3 summaries; there are 2 summaries of process #{@script.pid}/, two.err)
  end

  def test_a_process_that_keeps_nothing_has_no_leak
    4.times do
      @script.run("Array.new(50_000) { [] }; 5.times { GC.start }")
      summarize
    end
    trend = JSON.parse(diagctl!("heap", "trend", "--json").out)
    refute_equal "leak", trend["verdict"], trend["because"].inspect
  end

  private

  def summarize = diagctl!("request", "heap_summary", "--reason", "a test", "--wait", deadline: 90)
end
