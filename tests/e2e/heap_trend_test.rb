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

  # A long name costs figures of the table, never its width.
  def test_the_table_fits_the_terminal
    @script.run("module Application; module BackgroundProcessing; class RepositoryOfTenantsAndOfTheUsersWhoBelongToThem; end; end; end")
    3.times do
      @script.run("$sessions.concat(Array.new(20_000) { Application::BackgroundProcessing::RepositoryOfTenantsAndOfTheUsersWhoBelongToThem.new })")
      @script.run("5.times { GC.start }")
      summarize
    end
    [80, 60].each do |columns|
      table = diagctl!("heap", "trend", env: env(COLUMNS: columns.to_s)).out.lines(chomp: true).drop_while { |line| !line.start_with?("TREND") }
      assert_match(/\ATREND.* GROWTH .*LEAK +CLASS\z/, table.first)
      assert_match(/ yes +Application::/, table.join("\n"))
      assert(table.take_while { |line| line != "Next:" }.all? { |line| line.length <= columns }, table.join("\n"))
    end
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

  # A heap dump tells what keeps the objects; a summary cannot.
  def test_a_root_that_keeps_more_and_more_is_a_leak
    @script.run("module Shop; CACHE = []; end")
    early = diagctl("heap", "trend", "--by", "root")
    assert_equal 4, early.status
    3.times do
      @script.run("Shop::CACHE.concat(Array.new(20_000) { Session.new('t' * 40) }); Array.new(50_000) { [] }; 5.times { GC.start }")
      diagctl!("request", "heap_dump", "smaps", "--reason", "a test", "--wait", deadline: 90)
    end
    trend = diagctl!("heap", "trend", "--by", "root", "--json").json
    assert_equal ["root", "leak", false, 3], [*trend.values_at("by", "verdict", "old_only"), trend["summaries"].length]
    root = trend["groups"].first
    assert_equal ["Shop::CACHE", true], root.values_at("name", "leaks"), trend["groups"].first(3)
    assert_in_delta 80_000, root["counts"].last - root["counts"].first, 500
    assert_match(/\AShop::CACHE grows in each of 3 heap dumps: from /, trend["because"].first)
    assert_match(/`Shop::CACHE.*` grew by \d\d,\d\d\d \w+ .* all of it is still there in C/, trend["because"].join("\n"))
    assert_match(/\Adiagctl heap retained \d+/, trend["next"].first)
    shown = diagctl!("heap", "trend", "--by", "root").out
    assert_match(/^process #{@script.pid} script one: 3 heap dumps over /, shown)
    assert_match(/^▁.█ .* yes +Shop::CACHE$/, shown)
    assert(shown.lines.reject { |line| line.start_with?("  diagctl") }.all? { |line| line.chomp.length <= 80 }, shown)
  end

  # The captures of the release before are made older, so that its growth has a slope.
  def test_the_growth_of_the_release_before_is_told
    @script.run("Diagctl.configure { |c| c.label(:release, '2026.11.2') }")
    3.times { grow_and_summarize }
    minutes = [30, 20, 10].each
    diagctl!("list", "--json").json.fetch("captures").map { |capture| capture["id"] }.sort.each { |id| age(id, minutes.next) }
    diagctl!("gc")
    before = @script.pid
    E2E::Processes.signal(:KILL, before)
    @script = start_script
    @script.run("class Session; def initialize(token) = @token = token; end; $sessions = []")
    @script.run("Diagctl.configure { |c| c.label(:release, '2026.11.3') }")
    wait_until("the new one polls") { diagctl!("status", "--json").json["processes"].any? { |process| process["pid"] == @script.pid } }
    3.times { grow_and_summarize }
    trend = diagctl!("heap", "trend", "--json").json
    assert_equal [@script.pid, "2026.11.3"], [trend["pid"], trend["summaries"].last["release"]], trend
    release = trend["releases"].first
    assert_equal ["2026.11.2", before, 3], release.values_at("release", "pid", "summaries"), trend
    assert_in_delta 1_200_000, release["over_ms"], 60_000
    assert_operator release["all_per_hour"], :>, 1 << 20
    assert_equal "Session", release["group"].first
    shown = diagctl!("heap", "trend").out
    assert_match(/^process #{@script.pid} script one: 3 summaries over \S+, release 2026\.11\.3$/, shown)
    assert_match(%r{^Other releases:\n  2026\.11\.2 \(pid #{before}, over \d+m.*?\): all \+\S+ MiB/h, Session \+\S+ MiB/h$}, shown)
  end

  private

  def grow_and_summarize
    @script.run("$sessions.concat(Array.new(20_000) { Session.new(1) }); 5.times { GC.start }")
    summarize
  end

  def age(id, minutes)
    path = File.join(@store, "reports", id, "meta.json")
    meta = JSON.parse(File.read(path))
    meta["store_ms"] -= minutes * 60_000
    meta.delete("check") # as of a person who edits it
    File.write(path, JSON.generate(meta))
    %w[index.jsonl catalog.bin].each { |name| FileUtils.rm_f(File.join(@store, name)) }
  end

  def summarize = diagctl!("request", "heap_summary", "--reason", "a test", "--wait", deadline: 90)
end
