# frozen_string_literal: true

require_relative "../helper"

class ReportsTest < Minitest::Test
  include Sandbox

  JEMALLOC = Dir["/usr/lib/*/libjemalloc.so.2"].first

  def report(name, options = {})
    StringIO.new.tap { |io| Diagctl::Reports.new(@config).fetch(name).call(io, options) }.string
  end

  def test_gc_stat_is_json_with_the_numbers_of_ruby
    data = JSON.parse(report("gc_stat"))
    assert_operator data["count"], :>=, 0
    assert_operator data["stat"]["heap_live_slots"], :>, 0
  end

  # Of a large heap that takes tens of milliseconds, in which no other thread runs.
  def test_gc_stat_does_not_visit_the_heap
    replacing(ObjectSpace, :count_objects, -> { flunk }) { report("gc_stat") }
  end

  def test_threads_have_names_and_backtraces_and_no_data
    thread = Thread.new { Thread.current.name = "my worker"; hunted = "hunter2"; sleep; hunted }
    eventually("asleep") { thread.stop? }
    text = report("threads")
    assert_match(/Thread "my worker" tid=\d+ status=sleep priority=0\n  #{Regexp.escape(__FILE__)}:\d+:in [`'](Kernel#)?sleep'/, text)
    assert_match(/Thread "main".*\(took this report\)/, text)
    refute_includes text, "hunter2"
  ensure
    thread&.kill
  end

  def test_ruby_names_environment_variables_and_never_their_values
    ENV["DIAGCTL_TEST_SECRET"] = "hunter2"
    text = report("ruby")
    assert_includes JSON.parse(text)["environment_names"], "DIAGCTL_TEST_SECRET"
    refute_includes text, "hunter2"
    assert_operator JSON.parse(text)["uptime_seconds"], :>=, 0
  ensure
    ENV.delete("DIAGCTL_TEST_SECRET")
  end

  # A title holds the name of a directory, whose bytes are anybody's.
  def test_ruby_is_json_whatever_the_process_calls_itself
    before = $PROGRAM_NAME
    $PROGRAM_NAME = "puma [caf\xE9]"
    assert_equal "puma [caf?]", JSON.parse(report("ruby"))["title"]
  ensure
    $PROGRAM_NAME = before
  end

  def test_malloc_info_is_the_xml_of_glibc
    skip "no glibc" unless Diagctl::Libc.symbol("gnu_get_libc_version")

    assert_match(/\A<malloc version="1">.*<\/malloc>\s*\z/m, report("malloc_info"))
  end

  def test_without_jemalloc_its_report_is_unavailable
    skip "jemalloc is loaded here" if Diagctl::Libc.symbol("malloc_stats_print")

    assert_match(/jemalloc is not loaded/, assert_raises(Diagctl::Unavailable) { report("jemalloc_stats") }.message)
  end

  def test_jemalloc_stats_are_json_and_its_options_go_through
    skip "no jemalloc on this machine" unless JEMALLOC

    code = <<~RUBY
      Diagctl::Runtime.load
      reports = Diagctl::Reports.new(Diagctl.configuration)
      # jemalloc 5.3 writes `stats_print` twice, which JSON 3 minds unless it is told not to.
      parse = ->(text) { JSON.parse(text, allow_duplicate_key: true) }
      get = ->(name, options) { StringIO.new.tap { |io| reports.fetch(name).call(io, options) }.string }
      3.times { Thread.new { loop { "x" * 1000 } } }
      20.times { parse.call(get.call("jemalloc_stats", {})) }
      p parse.call(get.call("jemalloc_stats", {})).dig("jemalloc", "stats", "allocated").positive?
      p get.call("jemalloc_stats", { "options" => "a" }).start_with?("___ Begin jemalloc statistics ___")
      p((get.call("jemalloc_stats", { "options" => "J;" }) rescue $!.message))
      p((get.call("malloc_info", {}) rescue $!.message))
    RUBY
    out, = ruby(code, env: { "LD_PRELOAD" => JEMALLOC })
    lines = out.lines(chomp: true)
    assert_equal %w[true true], lines.first(2), out
    assert_match(/options .*J;.* are not letters/, lines[2])
    assert_match(/jemalloc replaces the allocator/, lines[3])
  end

  def test_object_counts_survive_classes_that_lie_about_themselves
    liar = Class.new(BasicObject) { def class = ::Kernel.raise("no") }
    Class.new { def self.name = raise("no") }.then { |type| @kept = [liar.new, type.new] }
    rows = JSON.parse(report("object_counts"))["classes"]
    assert_operator rows.sum { |row| row["count"] }, :>, 1000
    assert(rows.any? { |row| row["class"] == "#<anonymous Class>" })
    assert_equal rows, rows.sort_by { |row| [-row["memsize"], row["class"]] }
  end

  def test_objects_count_under_their_real_class_and_are_not_asked
    base = Class.new(BasicObject) { %i[method_missing ! ==].each { |name| define_method(name) { |*| ::Kernel.raise("asked") } } }
    plain = Class.new { %i[class singleton_class is_a? hash].each { |name| define_method(name) { |*| raise "asked" } } }
    Diagctl.const_set(:TestBare, base)
    Diagctl.const_set(:TestPlain, plain)
    @kept = Array.new(3) { base.new } + Array.new(4) { plain.new } + Array.new(5) { plain.new.tap { |one| def one.own = 1 } } +
      Array.new(6) { plain.new.extend(Comparable) }
    rows = JSON.parse(report("object_counts"))["classes"]
    count = rows.to_h { |row| row.values_at("class", "count") }
    assert_equal [3, 15], count.values_at("Diagctl::TestBare", "Diagctl::TestPlain")
    assert_operator count["Class"], :>, 100, "each has a singleton class of its own"
    refute(rows.any? { |row| row["class"].start_with?("#<Class:") })
    assert_equal rows.map { |row| row["class"] }.grep_v("#<anonymous Class>").tally.values.uniq, [1]
  ensure
    %i[TestBare TestPlain].each { |name| Diagctl.send(:remove_const, name) }
  end

  # A heap dump that the same dumper makes afterwards would be full of them.
  def test_counting_allocates_next_to_nothing_per_object
    @kept = Array.new(100_000) { Object.new }
    before = GC.stat(:total_allocated_objects)
    report("object_counts")
    assert_operator GC.stat(:total_allocated_objects) - before, :<, 30_000
  end

  def test_what_wraps_an_object_of_the_vm_is_no_trouble
    @kept = ObjectSpace.reachable_objects_from(Class.new { def a = 1 }).grep(ObjectSpace::InternalObjectWrapper)
    refute_empty @kept
    refute_empty report("object_counts")
  end

  def test_an_unknown_name_is_unavailable
    assert_equal "not available in this process", assert_raises(Diagctl::Unavailable) { report("nope") }.message
  end
end
