# frozen_string_literal: true

require_relative "support/e2e"
require_relative "support/reap"
require_relative "support/pprof"

# Exports opened by the tools that they are for, which show the same as diagctl.
class HeapToolsTest < E2E::Case
  CLASS = /, "class":("0x\h+")/n
  # In others, and where it is no address, the word that `dump_all` writes as the class is something else (internal/imemo.h).
  INTERNAL = /"type":"IMEMO"(?!.*"imemo_type":"(iseq|env|cref|svar|ment|constcache)")|"class":"0x\h*[^08]"/n
  PROGRAM = <<~'RUBY'
    require "objspace"
    ObjectSpace.trace_object_allocations_start
    module Shop; class Session; def initialize(user); @user = user; @seen = [user, [user]]; end; end; CACHE = {}; end
    300.times { |i| Shop::CACHE[i] = Shop::Session.new("user #{i % 3}") }
    LIST = (1..300).reduce(nil) { |rest, i| [i.to_s, rest] }
    RING = Array.new(50) { [] }.each_cons(2) { |a, b| a << b; b << a }
    THREAD = Thread.new { Thread.current[:held] = ["held by a fiber"] * 3; sleep }
    STRUCT = Struct.new(:a, :b).new("x" * 10_000, Shop::CACHE)
    Thread.pass until THREAD.stop?
    GC.start
  RUBY

  # `dump_all` of this very Ruby, as people make it, and what diagctl has stored of one.
  def test_retained_sizes_are_those_of_reap_object_by_object
    reap = E2E::Reap.path || skip("reap is not installed: scripts/reap builds it")
    { "dump_all" => dump, "walker" => export("json") }.each do |producer, json|
      # reap knows no reference of an object to its class. So diagctl reads a dump that names no class; and then reap one in which each
      # object refers to its class.
      without = rewrite(json, "#{producer}.without") { |line| line.sub(CLASS, "") }
      with = rewrite(json, "#{producer}.with") { |line| refer_to_class(line) }
      { "as reap sees it" => [without, json], "with classes" => [with, with] }.each do |graph, (ours, theirs)|
        expected = E2E::Reap.retained(reap, theirs)
        found = retained(ours)
        assert_operator expected.size, :>, 5_000
        assert_empty found.reject { |address, sizes| expected[address] == sizes }.first(3), "#{producer}, #{graph}"
        assert_equal expected.size, found.size, "#{producer}, #{graph}"
      end
    end
  end

  def test_a_dump_whose_class_edges_diagctl_adds_itself_is_the_one_that_names_them
    json = dump
    with = rewrite(json, "with") { |line| refer_to_class(line) }
    assert_equal retained(with), retained(json)
  end

  def test_heapy_counts_what_is_exported
    skip "heapy is not installed (Debian's ruby-heapy)" unless system("heapy", "version", %i[out err] => File::NULL)
    json = export("json")
    assert_equal File.binread(json), diagctl!("fetch", "#{captured}:heap_dump", "--as", "json", "-o", "-").out.b
    read = E2E::Command.run("heapy", "read", json, env: env, deadline: 60)
    assert read.ok?, read
    refute_match(/Could not parse/, read.out)
    counts = File.foreach(json).map { |line| JSON.parse(line)["generation"] || 0 }.tally
    told = read.out.scan(/Generation:\s+(\S+) object count: (\d+)/).to_h { |generation, count| [generation.to_i, count.to_i] }
    assert_equal counts, told
    site = E2E::Command.run("heapy", "read", json, "all", env: env, deadline: 60)
    assert_match(/^\s+6\d{2}\s+\S.*:#{PROGRAM.lines.index { |line| line.start_with?("LIST") } + 1}$/, site.out, "an array and a string each")
  end

  def test_the_export_for_pprof_holds_the_reachable_bytes
    profile = E2E::Pprof.new(File.binread(export("pprof")))
    top = diagctl!("heap", "top", @id, "--json").json
    assert_equal %w[objects space], profile.sample_types
    assert_equal top.fetch("reachable").values_at("objects", "bytes"), profile.totals
    assert_includes profile.functions, "Shop::Session"
    # pprof takes such a name for a template of C++, and cuts it off (internal/symbolizer, `demangleSingleFunction`).
    assert_empty profile.system_names
  end

  # The properties that Chrome DevTools and memlab rely on (v8, src/profiler/heap-snapshot-generator.cc): flat arrays, edges in the order of their nodes.
  def test_the_export_for_chrome_is_consistent
    snapshot = JSON.parse(File.read(export("heapsnapshot")))
    meta = snapshot.dig("snapshot", "meta")
    nodes, edges = { "node" => "nodes", "edge" => "edges" }.map do |kind, list|
      fields = meta.fetch("#{kind}_fields")
      snapshot.fetch(list).each_slice(fields.size).map { |values| fields.zip(values).to_h }
    end
    assert_equal [nodes.size, edges.size], snapshot.fetch("snapshot").values_at("node_count", "edge_count")
    assert_equal edges.size, nodes.sum { |node| node["edge_count"] }
    starts = (0...snapshot["nodes"].size).step(meta["node_fields"].size).to_a.to_h { |place| [place, true] }
    assert(edges.all? { |edge| starts[edge["to_node"]] })
    assert(nodes.all? { |node| snapshot["strings"][node["name"]] })
    assert_equal nodes.size, nodes.map { |node| node["id"] }.uniq.size
    reachable = diagctl!("heap", "top", @id, "--json").json.fetch("reachable").fetch("bytes")
    assert_equal reachable, nodes.sum { |node| node["self_size"] }
  end

  def test_the_flame_graph_is_well_formed
    require "rexml/document"
    svg = REXML::Document.new(File.read(export("svg")))
    assert_includes svg.root.get_elements("//title").map(&:text).join("\n"), "Shop::Session"
  rescue LoadError
    skip "this Ruby has no REXML"
  end

  private

  def dump
    path = File.join(@root, "dump.json")
    result = E2E::Command.run(RbConfig.ruby, "-e", "#{PROGRAM}\nFile.open(#{path.inspect}, 'w') { |file| ObjectSpace.dump_all(output: file) }",
                              env: env(DIAGCTL_ENABLED: nil), deadline: 60)
    assert result.ok?, result
    path
  end

  def export(format)
    path = File.join(@root, "export.#{format}")
    diagctl!("heap", "export", captured, "--format", format, "-o", path)
    path
  end

  def captured
    @id ||= begin
      script = start_script
      script.run("eval(#{PROGRAM.dump}); File.write(#{File.join(@root, "ready").inspect}, '')")
      wait_until("the program", tell: script.method(:log)) { File.exist?(File.join(@root, "ready")) }
      diagctl!("request", "heap_dump", "--reason", "a test", "--wait", deadline: 90)
      captures.first.fetch("id")
    end
  end

  # Line by line, and as Ruby writes them. Within a string, a quotation mark has a backslash.
  def rewrite(json, name, &block)
    path = File.join(@root, name)
    File.open(path, "wb") { |out| File.foreach(json, mode: "rb") { |line| out.write(block.call(line)) } }
    path
  end

  def refer_to_class(line)
    target = line[CLASS, 1]
    return line if target.nil? || line.match?(INTERNAL)
    return line.sub('"references":[') { |found| "#{found}#{target}, " } if line.include?('"references":[')

    line.sub(/(, "memsize"|\}$)/) { |rest| ", \"references\":[#{target}]#{rest}" }
  end

  # @return [Hash{String => Array(Integer, Integer)}] retained bytes and objects by address
  def retained(path)
    rows = diagctl!("heap", "retained", path, "-n", "10000000", "--json", deadline: 60).json.fetch("retained")
    rows.to_h { |row| [row["address"], row.values_at("retained", "objects")] }
  end
end
