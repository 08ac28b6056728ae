# frozen_string_literal: true

require_relative "support/e2e"
require_relative "support/promtool"

# The metrics of a store.
class MetricsTest < E2E::Case
  def test_prometheus_accepts_the_numbers_and_they_are_those_of_the_store
    configure(rule("routine", "timer = { every = \"1h\" }", %w[gc_stat]), remote: "url = \"file://#{@root}\"")
    start_script
    wait_until("the capture of the rule") { captures.any? }
    ids = [diagctl!("run", "--report", "out", "--", "echo", "x"), diagctl!("run", "--report", "out", "--", "echo", "x")].map { |result| result.out.chomp }
    diagctl!("rm", ids.first)
    lines = diagctl!("metrics").out.lines(chomp: true)
    assert_equal "# EOF", lines.last
    { "diagctl_captures{rule=\"run\"}" => 1, "diagctl_captures{rule=\"routine\"}" => 1, "diagctl_captures_taken_total" => 3,
      "diagctl_unshipped_captures" => 2, "diagctl_processes{role=\"script\"}" => 1, "diagctl_lease_taken" => 0,
      "diagctl_events_total{event=\"deleted\",cause=\"person\"}" => 1,
      "diagctl_cost_units{window=\"hour\"}" => 3 }.each do |name, value|
      assert_includes lines, "#{name} #{value}"
    end
    assert_equal 1, (lines.grep(/^diagctl_events_total\{event="published",rule="routine"\} 1/).size), lines.grep(/events/)

    file = File.join(@root, "diagctl.prom")
    assert_empty diagctl!("metrics", "--textfile", file).out
    assert_equal 0o644, File.stat(file).mode & 0o777
    assert_equal [file], Dir[File.join(@root, "*.prom"), File.join(@root, ".diagctl-*")]
    E2E::Promtool.check(self, File.read(file))
  end

  def test_a_file_that_cannot_be_written_is_told_and_leaves_nothing
    diagctl!("run", "--report", "out", "--", "echo", "x")
    fifo, link = %w[fifo link].map { |name| File.join(@root, name) }
    File.mkfifo(fifo)
    File.symlink("numbers", link)
    [fifo, link, "/dev/null"].each do |path|
      refused = diagctl("metrics", "--textfile", path)
      assert_equal 2, refused.status, refused
      assert_match(/#{path} is not a regular file, so it is not replaced\n  hint: name a file/, refused.err)
    end
    assert_equal %w[fifo link characterSpecial], [fifo, link, "/dev/null"].map { |path| File.ftype(path) }
    result = diagctl("metrics", "--textfile", File.join(@root, "none/x.prom"))
    assert_equal 1, result.status
    assert_match(%r{cannot write .*none/x.prom}, result.err)
  end
end
