# frozen_string_literal: true

require_relative "support/e2e"

# The report heap_summary of a real process: counts, no dump, no values.
class HeapSummaryTest < E2E::Case
  SECRET = "c0ffee-not-for-others"

  def setup
    super
    @script = start_script
    @script.run("Session = Class.new { def initialize(token) = @token = token }; $sessions = []")
  end

  def test_the_walker_counts_the_objects_and_no_dump_is_stored
    assert_summary("walker", *summary("heap_summary"))
  end

  def test_without_the_walker_dump_all_is_counted
    configure("", "reports.heap_dump" => 'producer = "dump_all"')
    assert_summary("dump_all", *summary("heap_summary"))
  end

  def test_a_dump_of_the_same_capture_is_stored_beside_it
    id, summary = summary("heap_summary", "heap_dump")
    assert_equal %w[heap_summary heap_dump], (meta(id)["reports"].map { |report| report["name"] })
    assert_equal "walker", summary["producer"]
    assert_operator meta(id)["reports"].last["raw_bytes"], :>, 20 * meta(id)["reports"].first["raw_bytes"]
  end

  def test_a_dump_carries_its_summary_and_three_of_them_make_a_trend
    ids = Array.new(3) do
      @script.run("$sessions.concat(Array.new(20_000) { Session.new(1) }); 5.times { GC.start }")
      diagctl!("request", "heap_dump", "--reason", "a test", "--wait", deadline: 90).out.strip
    end
    assert_equal %w[heap_dump heap_summary], (meta(ids.last)["reports"].map { |report| report["name"] })
    of_dump = diagctl!("heap", "top", ids.last, "--json", "-n", "1000").json
    of_summary = diagctl!("heap", "top", "#{ids.last}:heap_summary", "--json").json
    assert_equal [of_dump["objects"], of_dump["bytes"], "heap_summary"], of_summary.values_at("objects", "bytes", "source")
    assert_equal "leak", diagctl!("heap", "trend", "--json").json["verdict"]
    assert diagctl("verify", "--all").ok?
  end

  # Without the dump nobody could tell what it is a summary of.
  def test_the_summary_of_a_dump_that_is_dropped_is_dropped_too
    dump = E2E.dump("")
    dumper = granted("gc_stat", "heap_dump")
    assert dumper.put("gc_stat", "{}").ok? && dumper.put("heap_dump", dump).ok?
    assert_equal 5, dumper.finalize("--failed", "heap_dump=its producer broke off").status
    assert_equal %w[gc_stat heap_dump], (meta(dumper.capture)["reports"].map { |report| report["name"] })
    refute Dir.children(File.join(@store, "reports", dumper.capture)).any? { |file| file.start_with?("heap_summary") }
  end

  private

  def summary(*reports)
    @script.run("$sessions.concat(Array.new(500) { |i| Session.new(\"#{SECRET}-\#{i}\") })")
    diagctl!("request", *reports, "--reason", "a test", "--wait", deadline: 90)
    id = captures.first.fetch("id")
    assert_equal [nil], meta(id)["reports"].map { |report| report["error"] }.uniq
    [id, JSON.parse(report(id, "heap_summary"))]
  end

  def assert_summary(producer, id, summary)
    assert_equal [producer, true], summary.values_at("producer", "complete")
    # A dump of dump_all does not say which Ruby wrote it.
    assert_equal producer == "walker" ? RUBY_VERSION : "", summary["ruby"]
    sessions = summary.dig("classes", "groups").find { |group| group["name"] == "Session" }
    assert_equal 500, sessions["count"]
    types = summary.dig("types", "groups").sum { |group| group["count"] }
    assert_equal summary.dig("objects", "count"), types
    refute_includes JSON.generate(summary), SECRET
    stored = Dir.children(File.join(@store, "reports", id)).reject { |name| name == "meta.json" }
    assert_equal 1, stored.length, stored.inspect
    assert_operator File.size(File.join(@store, "reports", id, stored.first)), :<, 16 * 1024
  end
end
