# frozen_string_literal: true

require_relative "support/e2e"
require_relative "support/heap_graph"

# The heap walker is right: it says what Ruby itself says of the same heap, in the same forked child, and it says no value.
class HeapWalkerAnswersTest < E2E::Case
  TYPES = E2E::HeapGraph::TYPES
  # Ruby itself changes these while it writes its dump: caches of calls, the stack, the buffer of the file.
  RESTLESS = %w[CLASS ICLASS MODULE IMEMO DATA FILE].freeze
  # Written twice in JSON, differently, or not at all in some version.
  FLAGS = %w[wb_protected old uncollectible marked pinned frozen fstring chilled singleton].freeze

  # A heap with everything in it, then both producers and Ruby's own counts in one child.
  PROGRAM = <<~'RUBY'
    require "diagctl"
    require "objspace"
    require "set"
    Diagctl::Runtime.load
    ObjectSpace.trace_object_allocations_start if ENV["TRACE"]
    module Specimen
      KNOWN = Object.new
      @@shared = KNOWN
      @own = KNOWN
      autoload :Missing, "/nonexistent/specimen"
      Pair = Struct.new(:left, :right)
      class Base; end
      class Child < Base
        def initialize; @first = KNOWN; @secret = "the secret of a variable"; end
      end
    end
    generic = "with a variable".dup
    generic.instance_variable_set(:@generic, Specimen::KNOWN)
    secret = ->(kind) { "secret of #{kind} #{rand(0)}" }
    $secrets = %w[string embedded symbol key value frozen regexp struct].to_h { |kind| [kind, secret.(kind)] }
    $kept = [generic, Specimen::Child.new, Specimen::Pair.new(nil, Specimen::KNOWN), { known: Specimen::KNOWN, "text" => 1 },
             $secrets["symbol"].to_sym, { $secrets["key"].to_sym => Object.new, $secrets["value"] => $secrets["value"].to_sym },
             Regexp.new($secrets["regexp"]), $secrets["regexp"].match(/o(f)/), Specimen::Pair.new($secrets["struct"]),
             Array.new(2_000) { |i| [i.to_s, i * 1.5e300, 2**70 + i, { a: i }, Specimen::Child.new, "#{i} " * 40] },
             Array.new(100) { |i| [Class.new(Specimen::Base), Object.new.singleton_class, proc { i }, Fiber.new { Fiber.yield }.tap(&:resume)] },
             Array.new(70_000) { |i| i.to_s }, "root of shared bytes " * 20, ("root of shared bytes " * 20)[9..], "\u00e9", "a\xff", "x".encode("UTF-16LE"),
             Thread.new { Thread.current[:mine] = Specimen::KNOWN; Thread.current.name = "the secret of a thread"; sleep }, Mutex.new,
             Hash.new(Specimen::KNOWN).update(1 => 2, "x" => [1]), Hash.new { Specimen::KNOWN }, Hash.new(Specimen::KNOWN).compare_by_identity, method(:puts), 3r / 7, Complex(1, 2), [1].each,
             [nil, nil, 0, 0, -1, 1000].flat_map { |place| [200, 5_000].map { |times| ("long text " * times).tap { |text| text.setbyte(place, 88) if place } } },
             Array.new(2) { $long ||= "shared text " * 300; $long.dup },
             Set.new([1, []]), 2**100, ObjectSpace::WeakMap.new.tap { |map| map[Specimen] = KNOWN_KEY = Object.new }, ENV, $stdin]
    # Code that is never called: 1,800 call sites each.
    $code = Array.new(ENV["CODE"].to_i) { eval "-> { #{"first.second(1).third; " * 600} }" }
    Thread.pass until $kept.grep(Thread).all?(&:stop?)
    GC.start
    GC.disable
    threads = Diagctl::ThreadStacks.collect(Thread.list)
    child = fork do
      object = File.open("walker.so")
      status = File.open("status", "w+").tap { |file| file.truncate(4096) }
      process = Diagctl::WalkerProcess.new(object, status, threads)
      graph, counts, json = %w[graph counts json].map { |name| File.open(name, "w") }
      walk, count = process.prepare(graph, 0), process.prepare(counts, 1)
      told = Array.new(3) { [ObjectSpace.count_objects, ObjectSpace.count_objects_size, [ObjectSpace.memsize_of_all]] }
      again = lambda do |(objects, sizes, all)|
        ObjectSpace.count_objects(objects)
        ObjectSpace.count_objects_size(sizes)
        all[0] = ObjectSpace.memsize_of_all
      end
      again.(told[0]); again.(told[0])
      counted = count.call
      again.(told[1])
      own = -> { File.read("/proc/self/smaps_rollup")[/^Private_Dirty: *(\d+)/, 1].to_i << 10 }
      own_before = own.call
      walked = walk.call
      copied = own.call - own_before
      again.(told[2])
      ObjectSpace.dump_all(output: json)
      json.close
      File.write("told.json", JSON.generate(told: told, ended: [counted, walked], copied: copied, secrets: $secrets.values,
        known: Fiddle.dlwrap(Specimen::KNOWN), missing: Specimen.autoload?(:Missing), reason: status.pread(1000, 40)))
      exit!(0)
    end
    Process.wait(child)
    exit!($?.success? ? 0 : 1)
  RUBY

  def test_the_walker_and_ruby_agree_on_every_object
    run_program
    graph = E2E::HeapGraph.new(@files.fetch("graph"))
    dump = read_dump
    assert_equal "walker", graph.producer
    assert_equal RUBY_VERSION, graph.header[2].pack("C*")
    assert_empty graph.objects.keys - dump.keys
    assert_operator (dump.keys - graph.objects.keys).size, :<, 500, "made by dump_all itself"
    different = graph.objects.values.filter_map { |object| difference(object, dump.fetch(object.address)) }
    restless, wrong = different.partition { |_, type| RESTLESS.include?(type) }
    assert_empty wrong.first(5)
    assert_operator restless.size, :<, 40, restless.first(5).inspect
    assert_trailer(graph)
  end

  # A forked process copies each page that it writes to.
  def test_the_walker_writes_to_no_code_that_was_never_called
    run_program
    without = @told["copied"]
    run_program(CODE: "1000")
    assert_operator @told["copied"] - without, :<, 8 << 20, "of 28 MB of call sites"
  end

  def test_allocation_sites_are_those_of_ruby
    run_program(TRACE: "1")
    graph = E2E::HeapGraph.new(@files.fetch("graph"))
    dump = read_dump
    traced = graph.objects.values.select(&:site)
    assert_operator traced.size, :>, 10_000
    wrong = traced.reject do |object|
      told = dump.fetch(object.address)
      [object.site[0].last, object.site[1], object.site[2]&.last, object.generation] ==
        [told["file"].b, told["line"], told["method"]&.b, told["generation"]]
    end
    assert_empty wrong.first(3)
  end

  def test_edges_have_the_names_of_the_code
    run_program
    graph = E2E::HeapGraph.new(@files.fetch("graph"))
    labels = graph.objects.values.flat_map(&:edges).select { |target, label| label && target == @told["known"] }.map(&:last).uniq
    assert_equal [[1, "@first"], [1, "@generic"], [1, "@own"], [2, "KNOWN"], [3, "@@shared"], [4, "right"], [5, "known"], [7, "mine"], [8, "default"]].sort,
                 labels.reject { |label| label.first == 8 && label.last != "default" }.sort
    named = graph.objects.values.find { |object| object.name == "Specimen::Child" }
    assert_includes named.edges.map(&:last), [8, "superclass"]
    assert_equal "/nonexistent/specimen", @told["missing"], "the walk triggered an autoload"
  end

  # Ruby's own numbers, from just before and just after the count. Only the count itself may have made objects in between.
  def test_the_counts_are_those_of_ruby
    run_program
    counts = JSON.parse(@files.fetch("counts"))
    before, after = @told["told"].first(2)
    %w[count_objects count_objects_size].each_with_index do |report, index|
      assert_equal before[index].keys.sort, counts[report].keys.sort
      counts[report].each do |type, number|
        bounds = [before[index][type], after[index][type]].minmax
        assert_includes Range.new(*bounds), number, "#{report} #{type}"
        assert_operator bounds.reduce(:-).abs, :<, report == "count_objects" ? 20 : 4000, "#{report} #{type}"
      end
    end
    assert_includes Range.new(before[2].first, after[2].first), counts["memsize_of_all"]
    rows = counts["classes"]
    assert_equal rows, rows.sort_by { |row| [-row["memsize"], row["class"]] }
    assert_equal 2001, rows.find { |row| row["class"] == "Specimen::Child" }["count"]
    assert_equal counts["memsize_of_all"], rows.sum { |row| row["memsize"] } if RUBY_VERSION >= "3.2"
  end

  # The same of the graph.
  def test_the_objects_of_the_graph_are_those_that_ruby_counts
    run_program
    graph = E2E::HeapGraph.new(@files.fetch("graph"))
    before, after = @told["told"].last(2)
    by_type = graph.objects.values.group_by(&:type)
    counts = TYPES.to_h { |name, type| ["T_#{name}", by_type.fetch(type, []).size] }.merge(
      "FREE" => graph.free.sum(&:last), "TOTAL" => graph.objects.size + graph.free.sum(&:last)
    )
    sizes = TYPES.to_h { |name, type| ["T_#{name}", by_type.fetch(type, []).sum(&:size)] }.merge("TOTAL" => graph.objects.values.sum(&:size))
    [counts, sizes].each_with_index do |found, index|
      assert_empty before[index].keys - found.keys
      found.each do |type, number|
        bounds = [before[index].fetch(type, 0), after[index].fetch(type, 0)].minmax
        assert_includes Range.new(*bounds), number, "#{type}, #{%w[objects bytes][index]}"
        assert_operator bounds.reduce(:-).abs, :<, index.zero? ? 20 : 4000, "#{type}, #{%w[objects bytes][index]}"
      end
    end
  end

  def test_threads_and_fibers_are_told_by_the_place_of_their_block
    run_program
    graph = E2E::HeapGraph.new(@files.fetch("graph"))
    line = ->(text) { PROGRAM.lines.index { |it| it.include?(text) } + 1 }
    places = graph.objects.values.select { |object| ["fiber", "VM/thread"].include?(object.name) }.to_h do |object|
      [object.address, [object.name, *object.edges.map(&:last).compact.select { |kind, _| kind == 9 }.map(&:last).uniq]]
    end
    assert_includes places.values, ["VM/thread", "-:#{line.("Thread.current.name")}"]
    assert_equal 100, places.values.count(["fiber", "-:#{line.("Fiber.yield")}"]), places.values.tally
    # The main thread has no block.
    assert_includes places.values, ["VM/thread", "thread"]
    refute_includes @files.fetch("graph"), "the secret of a thread"
  end

  # `dump_all` tells only blocks (3.1 to 3.4), the walker values too.
  def test_what_a_hash_has_by_default_is_an_edge_with_that_name
    run_program
    graph = E2E::HeapGraph.new(@files.fetch("graph"))
    hashes = graph.objects.values.select { |object| object.type == TYPES["HASH"] }
    defaults = hashes.flat_map { |hash| hash.edges.select { |_, label| label == [8, "default"] } }
    assert_equal 2, defaults.count { |target, _| target == @told["known"] }
    named = hashes.select { |hash| hash.edges.any? { |_, label| label == [8, "default"] } }.map(&:address)
    told = read_dump.values.select { |line| line["default"] }.map { |line| line["address"].hex }
    assert_empty told - named
    assert_operator named.size, :<, told.size + 20
  end

  def test_strings_have_the_same_hash_if_and_only_if_they_are_equal
    run_program
    graph = E2E::HeapGraph.new(@files.fetch("graph"))
    texts = read_dump.select { |_, line| line["type"] == "STRING" && line["value"] }.transform_values { |line| line["value"] }
    pairs = graph.objects.values.select(&:hash).filter_map { |object| [texts[object.address], object.hash] if texts[object.address] }.uniq
    assert_operator pairs.count { |text, _| text.bytesize > 2000 }, :>=, 5
    assert_equal [pairs.size] * 2, [pairs.map(&:first).uniq.size, pairs.map(&:last).uniq.size]
  end

  def test_no_value_is_in_the_graph
    run_program
    graph = @files.fetch("graph")
    @told["secrets"].push("the secret of a variable", "root of shared bytes").each { |secret| refute_includes graph, secret.b }
  end

  # One file for every Ruby and every C library.
  def test_the_walker_needs_no_library
    fetch_walker
    dynamic = IO.popen(["readelf", "--dynamic", "--wide", walker_path], &:read)
    refute_match(/NEEDED/, dynamic)
    symbols = `readelf --dyn-syms --wide #{walker_path}`.lines.map(&:split)
    assert_equal %w[diagctl_heapwalk], symbols.select { |fields| fields[4] == "GLOBAL" && fields[6] != "UND" }.map(&:last)
    assert_empty symbols.select { |fields| fields[6] == "UND" }.filter_map { |fields| fields[7] } - %w[bcmp memcmp memcpy memmove memset strlen]
  rescue Errno::ENOENT => e
    skip e.message
  end

  private

  def walker_path = File.join(@root, "walker.so")

  def fetch_walker
    dumper = granted("heap_dump")
    result = dumper.walker("--ruby", "a test")
    assert result.ok?, result
    File.binwrite(walker_path, result.out)
    dumper.close
  end

  def run_program(**more)
    fetch_walker
    environment = env(DIAGCTL_ENABLED: nil, RUBYLIB: E2E::PumaServer::LOAD_PATH, **more)
    result = E2E::Command.run(RbConfig.ruby, "-", env: environment, stdin: PROGRAM, chdir: @root, deadline: 120)
    assert result.ok?, result
    @told = JSON.parse(File.read(File.join(@root, "told.json")))
    assert_equal [0, 0], @told["ended"], @told["reason"]
    @files = %w[graph counts].to_h { |name| [name, File.binread(File.join(@root, name))] }
  end

  # Ruby 3.1 writes bytes that are not UTF-8.
  def read_dump
    lines = File.foreach(File.join(@root, "json"), encoding: Encoding::BINARY).lazy.map { |line| JSON.parse(line.force_encoding("UTF-8").scrub) }
    lines.reject { |told| told["type"] == "ROOT" }.to_h { |told| [told["address"].hex, told] }
  end

  # Returns what differs, or nil.
  def difference(object, told)
    type = told["type"]
    described = type != "ZOMBIE" && type != "IMEMO"
    class_address = told["class"].to_s.hex
    flags = told.fetch("flags", {}).keys + FLAGS.select { |flag| told[flag] }
    pairs = {
      type: [object.type, TYPES[type]],
      class: [described ? object.class_address : 0, described ? class_address : 0],
      size: [object.size, type == "ZOMBIE" ? object.size : told["memsize"].to_i],
      slot: [object.slot_size, told.fetch("slot_size", object.slot_size)],
      flags: [object.flags & FLAGS, type == "ZOMBIE" ? object.flags & FLAGS : FLAGS & flags],
      length: [object.length, told["shared"] || type == "STRUCT" ? object.length : told["bytesize"] || told["length"] || told["size"]],
      name: [object.name, (told["name"] || told["struct"] || told["imemo_type"])&.b],
      encoding: [object.encoding, type == "STRING" ? told["encoding"]&.b : object.encoding],
      # Ruby leaves out every reference to the class; the graph keeps those with a name.
      edges: [object.edges.map(&:first) - [class_address], told.fetch("references", []).map(&:hex) - [class_address]]
    }
    # The walker reads the call sites of code last.
    pairs[:edges].each(&:sort!) if told["imemo_type"] == "iseq"
    wrong = pairs.reject { |_, (mine, theirs)| mine == theirs }
    [object.address, type, wrong] unless wrong.empty?
  end

  def assert_trailer(graph)
    objects = graph.objects.values
    edges = objects.sum { |object| object.edges.size }
    named = objects.sum { |object| object.edges.count { |_, label| label } }
    assert_equal [1, objects.size, edges, named, graph.roots.size, objects.sum(&:size)], graph.trailer.values_at(1, 4, 5, 6, 7, 8)
    assert_equal [graph.free.sum(&:last)] * 2, [graph.trailer[9], graph.pages.sum(&:last)]
    assert_operator graph.stats["heap_live_slots"], :>, 0
  end
end
