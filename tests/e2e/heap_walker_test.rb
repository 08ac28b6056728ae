# frozen_string_literal: true

require_relative "support/e2e"
require_relative "support/heap_graph"

# The native heap walker in a real process: what it writes, and what happens when it crashes, hangs or is not wanted.
class HeapWalkerTest < E2E::Case
  # docs/heap-graph.md: the first bytes of a graph, and a key of its header.
  MAGIC = "\x89RHEAP\n\0".b
  PRODUCER = 1
  # A fault in the middle of the walk (crates/heapwalk/src/fault.rs). Later captures of the process have it, too.
  FAULT = "Diagctl::WalkerProcess.send(:remove_const, :FAULT); Diagctl::WalkerProcess::FAULT = [%d, 5000].freeze"

  # Objects by which a dump may differ from the worker right before the fork, by type, in all. Half of them are caches of calls and
  # constants, which Ruby makes when a line of code runs for the first time.
  OWN = 400
  DESCRIPTORS = 5_000
  POLLS = 120

  def setup
    super
    @script = start_script(wrapper: %W[prlimit --core=unlimited --nofile=#{DESCRIPTORS + 500}])
    @script.run("Dir.chdir(#{@root.inspect})")
  end

  def test_the_walker_makes_the_heap_dump_and_the_counts
    id = capture("heap_dump", "object_counts")
    assert_graph(id)
    assert_equal [nil], meta(id)["reports"].map { |report| report["note"] }.uniq
    counts = JSON.parse(report(id, "object_counts"))
    assert_equal %w[classes count_objects count_objects_size memsize_of_all], counts.keys.sort
    assert_operator counts["count_objects"]["T_STRING"], :>, 1000
    assert_empty remembered["failures"]
  end

  # Ruby's mark functions write: a flag into each environment of a block. These pages are copied in the walker's process.
  def test_the_pages_that_the_walk_copies_count
    skip("Ruby 3.4 sets that flag only where it is not set") if RUBY_VERSION >= "3.4"

    before = copied(capture("heap_dump"))
    @script.run("$blocks = Array.new(200_000) { |i| proc { i } }; GC.start")
    assert_operator copied(capture("heap_dump")) - before, :>, 5 << 20
  end

  # A forked child has lost the stacks of all threads but one. A block that captures a variable moves it off the stack.
  def test_what_other_threads_hold_in_local_variables_is_reachable
    program = File.join(@root, "program.rb")
    File.write(program, <<~'RUBY')
      class Row; def initialize(i) = @v = "row #{i}" * 3; end
      class Cell < Row; end
      class Held < Row; end
      def query = Array.new(1_000) { |i| Row.new(i) }.then { |rows| $ready << 1; sleep; rows.size }
      def export
        cells = Array.new(1_000) { |i| Cell.new(i) }
        count = -> { cells.size }
        $ready << 1
        sleep
        count.call
      end
      def fiber = Fiber.new { Array.new(1_000) { |i| Held.new(i) }.then { |held| $ready << 1; sleep; held.size } }.resume
      $ready = Queue.new
      $threads = %i[query export fiber].map { |work| Thread.new { send(work) } }
      3.times { $ready.pop }
      GC.start
    RUBY
    @script.run("load #{program.inspect}")
    id = capture("heap_dump")
    tops = diagctl!("heap", "top", id, "--json", "-n", "1000").json.fetch("groups").to_h { |group| [group["name"], group["count"]] }
    assert_equal [1_000] * 3, tops.values_at("Row", "Cell", "Held")
    assert_match(%r{\(threads\) → Thread at \S+/program.rb:\d+ → Array\[\] → Row$}, diagctl!("heap", "path", id, "Row").out)
  end

  # The proof takes a fork and some milliseconds, which are a tenth of a small dump. Where allocations are traced it is another one.
  def test_a_walker_that_proved_itself_need_not_do_so_again
    @script.run("module Lie; def bits(numbers) = super ^ 1 << 9; end")
    assert_graph(capture("heap_dump"))
    assert_equal 1, remembered["proofs"].size
    @script.run("Diagctl::WalkerSample.prepend(Lie)")
    assert_graph(capture("heap_dump"))
    @script.run('require "objspace"; ObjectSpace.trace_object_allocations_start')
    assert_match(/the proof failed/, note(capture("heap_dump")))
  end

  def test_a_walker_that_crashes_after_it_had_proved_itself_is_not_tried_again
    assert_graph(capture("heap_dump"))
    assert_fallback(1, /ended by SIGSEGV/)
    assert_nil remembered["proofs"]
  end

  def test_a_walker_that_is_not_wanted_is_not_used
    configure("", "reports.heap_dump" => 'producer = "dump_all"')
    id = capture("heap_dump")
    assert_equal "dump_all", producer(id)
  end

  def test_a_crash_costs_neither_the_capture_nor_the_worker
    assert_fallback(1, /ended by SIGSEGV/)
  end

  def test_an_abort_costs_neither_the_capture_nor_the_worker
    assert_fallback(2, /ended by SIGABRT/)
  end

  def test_a_hang_costs_neither_the_capture_nor_the_worker
    assert_fallback(3, /stood still for 10 s/)
  end

  # As on a Ruby with another layout of strings, or of which the walker reads something wrong: it says so itself, and walks nothing.
  def test_on_a_ruby_that_the_walker_does_not_understand_the_capture_says_why
    lies = { "add(*words)" => "super(*(words.first == 3 ? words[0..-2] + [1 - words.last] : words))", "bits(numbers)" => "super ^ 1 << 9" }
    ["layout of a STRING", "flags of a OBJECT"].zip(lies) do |what, (method, lie)|
      @script.run("module Lie#{what.hash.abs}; def #{method} = #{lie}; end; Diagctl::WalkerSample.prepend(Lie#{what.hash.abs})")
      id = capture("heap_dump", "object_counts")
      assert_equal ["dump_all", [nil]], [producer(id), meta(id)["reports"].map { |report| report["error"] }.uniq]
      assert_equal "not by the heap walker: the proof failed: #{what}", note(id)
      assert_includes diagctl!("show", id).out, note(id)
      refute File.exist?(File.join(@store, "walker.json")), "it did not crash"
      @script.run("Lie#{what.hash.abs}.send(:remove_method, :#{method[/\w+/]})")
    end
    assert_equal "walker", producer(capture("heap_dump"))
  end

  # The walker was ended from outside and did nothing wrong.
  def test_a_walker_that_was_killed_is_tried_again
    @script.run(format(FAULT, 3))
    diagctl!("request", "heap_dump", "--reason", "it is killed")
    # Again and again: the process of the proof may end by itself meanwhile.
    id = wait_until("a capture", deadline: 60, tell: -> { @script.log + E2E::Processes.descendants.inspect }) do
      walkers = E2E::Processes.descendants.select { |process| process.argv.first.to_s.start_with?("diagctl: walking") }
      E2E::Processes.signal(:KILL, *walkers.map(&:pid))
      captures.first&.fetch("id")
    end
    assert_match(/ended by SIGKILL/, note(id))
    refute File.exist?(File.join(@store, "walker.json"))
  end

  def test_the_dump_counts_what_the_worker_had_right_before_the_fork
    @script.run("FILES = Array.new(#{DESCRIPTORS}) { File.open(File::NULL) }; #{POLLS}.times { Diagctl.capture }; File.write('polled', '')")
    wait_until("#{POLLS} polls", tell: @script.method(:log)) { File.exist?(File.join(@root, "polled")) }
    # The first count makes objects itself. The walker is forked, too, but in another process.
    @script.run(<<~RUBY.tr("\n", ";"))
      $fork_for_real = Diagctl::ForkGuard.method(:raw_fork)
      Diagctl::ForkGuard.define_singleton_method(:raw_fork) { $before ||= ObjectSpace.count_objects && ObjectSpace.count_objects; $fork_for_real.call }
    RUBY
    id = capture("heap_dump")
    @script.run('File.write("before.new", JSON.generate($before)); File.rename("before.new", "before")')
    file = File.join(@root, "before")
    before = JSON.parse(wait_until("the counts") { File.read(file) if File.exist?(file) })
    graph = E2E::HeapGraph.new(report(id, "heap_dump"))
    assert_equal "walker", graph.producer
    dumped = graph.objects.values.map(&:type).tally
    differences = E2E::HeapGraph::TYPES.to_h { |name, type| [name, dumped.fetch(type, 0) - before.fetch("T_#{name}", 0)] }.reject { |_, count| count.zero? }
    assert_operator differences.values.sum(&:abs), :<=, OWN, differences.inspect
  end

  private

  def copied(id) = meta(id).fetch("cost").fetch("copied_bytes")

  def assert_fallback(fault, reason)
    @script.run(format(FAULT, fault))
    id = capture("heap_dump", "object_counts")
    assert_equal [nil], meta(id)["reports"].map { |report| report["error"] }.uniq
    assert_equal "dump_all", producer(id)
    assert_match(reason, note(id))
    JSON.parse(report(id, "object_counts"))
    assert_empty Dir.glob(File.join(@root, "**", "core*")), "a core file"
    # It is remembered, so nothing crashes again.
    second = capture("heap_dump")
    assert_match(/in capture #{id}, with this Ruby/, note(second))
    assert_equal "dump_all", producer(second)
    assert E2E::Processes.alive?(@script.pid), @script.log
    assert_empty @script.log.lines.grep(/BUG|Segmentation/), @script.log
  end

  def capture(*reports)
    diagctl!("request", *reports, "--reason", "a test", "--wait", deadline: 90)
    captures.first.fetch("id")
  end

  def remembered = JSON.parse(File.read(File.join(@store, "walker.json")))

  # As `show` prints it.
  def note(id) = JSON.parse(diagctl!("show", id, "--json").out)["reports"].find { |report| report["name"] == "heap_dump" }["note"]

  def assert_graph(id) = assert_equal("walker", producer(id))

  # Returns what made the stored dump, by the header of the graph. A dump in JSON has none.
  def producer(id)
    dump = report(id, "heap_dump").b
    return "dump_all" unless dump.start_with?(MAGIC)

    length = dump[12, 4].unpack1("V")
    fields = dump[28, length].bytes
    until fields.empty?
      key, size = fields.shift(2)
      value = fields.shift(size)
      return { [1] => "walker", [2] => "dump_all" }[value] if key == PRODUCER
    end
  end
end
