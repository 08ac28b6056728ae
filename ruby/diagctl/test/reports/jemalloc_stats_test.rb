# frozen_string_literal: true

require_relative "../reporting"

class JemallocStatsTest < Minitest::Test
  include Reporting

  JEMALLOC = Dir["/usr/lib/*/libjemalloc.so.2"].first

  def test_without_jemalloc_it_is_unavailable
    skip "jemalloc is loaded here" if Diagctl::Libc.symbol("malloc_stats_print")

    assert_match(/jemalloc is not loaded/, assert_raises(Diagctl::Unavailable) { report("jemalloc_stats") }.message)
  end

  def test_it_is_json_and_options_are_passed_to_jemalloc
    skip "no jemalloc on this machine" unless JEMALLOC

    code = <<~RUBY
      Diagctl::Runtime.load
      reports = Diagctl::Reports.new(Diagctl.configuration)
      # jemalloc 5.3 writes `stats_print` twice, which JSON 3 rejects by default.
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
    assert_match(/uses jemalloc instead of/, lines[3])
  end
end
