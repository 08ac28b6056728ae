# frozen_string_literal: true

require_relative "support/e2e"
require "json"
require "stringio"
require "zlib"

# A heap dump holds no value of the application, unless the operator asks for values.
class HeapValuesTest < E2E::Case
  MARKS = [/s3cr3t/i, /987_?654_?321/, "s3cr3t".encode("UTF-16LE").b].freeze
  EXPORTS = %w[json heapsnapshot pprof folded svg].freeze
  QUESTIONS = [%w[top], %w[top --by site], %w[top --by type], %w[retained], %w[path Holder], %w[path String], %w[path Thread], %w[strings]].freeze

  def test_no_secret_is_stored_or_exported
    assert_nothing_told("walker")
  end

  def test_no_secret_of_what_ruby_dumps_is_stored_or_exported
    configure("", "reports.heap_dump" => 'producer = "dump_all"')
    assert_nothing_told("dump_all")
  end

  # The other way around: with values there is something to find, and every command says so.
  def test_values_are_stored_when_asked_for_and_every_command_says_so
    configure(**WITH_VALUES)
    id = captured_secrets
    dump = report(id, "heap_dump").b
    assert_operator dump.scan(/"value":"s3cr3t-[\w-]+/).uniq.size, :>, 400
    report = heap_report(id)
    assert_equal ["heap_dump.ndjson.gz", "json", "all"], report.values_at("file", "format", "values")
    assert_includes diagctl!("list").out, "heap_dump(values)"
    assert_equal [true], diagctl!("list", "--json").json.fetch("captures").first.fetch("reports").filter_map { |listed| listed["values"] }
    assert_match(/^heap_dump .*json, with values/, diagctl!("show", id).out)
    assert_equal "all", diagctl!("show", id, "--json").json.fetch("reports").filter_map { |listed| listed["values"] }.first
    exported = diagctl!("fetch", "#{id}:heap_dump", "--as", "json", "-o", "-").out.b
    MARKS.each { |mark| refute exported.match?(mark), mark.inspect }
  end

  def test_a_conversion_is_also_written_compressed_and_refused_for_other_reports
    id = store_capture("gc_stat" => "{}", "heap_dump" => E2E.dump("whole"))
    path = File.join(@root, "dump.json.gz")
    diagctl!("fetch", "#{id}:heap_dump", "--as", "json", "--raw", "-o", path)
    assert_equal "", Zlib::GzipReader.open(path, &:read), "a root without an object"
    result = diagctl("fetch", "#{id}:gc_stat", "--as", "json")
    assert_equal [2, true], [result.status, result.err.include?("gc_stat is not a heap dump")], result
    diagctl!("fetch", id, "--as", "json", "-o", File.join(@root, "all"))
    assert_equal %w[gc_stat.json heap_dump.json heap_summary.json meta.json], Dir.children(File.join(@root, "all")).sort
  end

  private

  def assert_nothing_told(producer)
    id = captured_secrets
    contents = stored
    assert_includes contents.keys.map { |path| File.basename(path) }, "heap_dump.graph.zst"
    assert_includes contents.keys.map { |path| File.basename(path) }, "heap_summary.json.gz"
    contents["exported"] = diagctl!("fetch", "#{id}:heap_dump", "--as", "json", "-o", "-").out.b
    contents.update(EXPORTS.to_h { |format| [format, export(id, format)] })
    QUESTIONS.each { |question| contents["heap #{question.join(" ")}"] = diagctl!("heap", question.first, id, *question.drop(1), "-n", "100000").out.b }
    contents.each { |path, content| MARKS.each { |mark| refute content.match?(mark), "#{mark.inspect} in #{path}: #{content[/.{0,80}#{mark}.{0,40}/n].inspect}" } }
    assert_operator contents["exported"].scan('"type":"STRING"').size, :>, 10_000
    assert_operator contents["exported"].scan('"file":"').size, :>, 1_000, "allocation sites"
    report = heap_report(id)
    assert_equal ["heap-graph", "none", 0, producer], report.values_at("format", "values", "lost", "producer")
    refute_includes diagctl!("list").out, "(values)"
    assert_match(/^heap_dump .*heap-graph, no values/, diagctl!("show", id).out)
  end

  # Everything in the store, the history of polls and its other records among it.
  def stored
    files = Dir.glob(File.join(@store, "**", "*"), File::FNM_DOTMATCH).select { |path| File.file?(path) }
    files.to_h { |path| [path, unpacked(path)] }
  end

  def export(id, format)
    path = File.join(@root, "export.#{format}")
    diagctl!("heap", "export", id, "--format", format, "-o", path)
    File.binread(path).then { |content| format == "pprof" ? Zlib::GzipReader.new(StringIO.new(content)).read.b : content }
  end

  def captured_secrets
    script = start_script
    script.run("load #{File.join(__dir__, 'support/secrets.rb').inspect}; File.write(#{flag.inspect}, '')")
    wait_until("the secrets are hidden", tell: script.method(:log)) { File.exist?(flag) }
    diagctl!("request", "heap_dump", "object_counts", "--reason", "is a secret in it?", "--wait").out.strip
  end

  def flag = File.join(@root, "hidden")

  def heap_report(id) = meta(id).fetch("reports").find { |report| report["name"] == "heap_dump" }

  # Ruby cannot read zstd.
  def unpacked(path)
    return report(File.basename(File.dirname(path)), File.basename(path)[/\A\w+/]).b if path.end_with?(".zst")

    content = File.binread(path)
    path.end_with?(".gz") ? Zlib::GzipReader.new(StringIO.new(content)).read.b : content
  end
end
