# frozen_string_literal: true

require_relative "../../diagctl/test/helper"
$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
require "diagctl/puma"

# The notes of the master of a cluster on the end of its workers.
class PumaWorkersTest < Minitest::Test
  include Sandbox

  Handle = Struct.new(:pid, :process_status)

  # The part of Puma before 7 that reaps.
  class Runner
    attr_reader :reaped

    def initialize(workers) = (@workers, @reaped = workers, [])
    def check = wait_workers

    private

    def wait_workers = @workers.each { |worker| @reaped << Process.wait2(worker.pid).last.to_i }
  end

  def setup
    super
    File.write(path, "")
    @oom = File.join(@dir, "memory.events")
    File.write(@oom, "oom 0\noom_kill 4\n")
    @workers = Diagctl::Puma::Workers.new(@store, oom_kills: Diagctl::Puma::OomKills.new(["/nonexistent", @oom]))
  end

  def test_before_puma_reaps_a_worker_its_status_is_read_and_left_to_puma
    pids = [fork { exit! 3 }, fork { sleep }]
    Process.kill(:KILL, pids.last)
    pids.each { |pid| eventually("a zombie") { File.read("/proc/#{pid}/stat").include?(") Z ") } }
    runner = Runner.new(pids.map { |pid| Handle.new(pid) } + [])
    @workers.watch(launcher(runner))
    runner.check
    assert_equal [3 << 8, 9], runner.reaped
    assert_equal [[pids.first, 3, nil], [pids.last, nil, 9]], notes.map { |note| note.values_at("pid", "exit", "signal") }
    assert(notes.all? { |note| note["start_ticks"].positive? })
    assert_raises(NoMethodError) { runner.wait_workers }
  end

  def test_from_puma_7_on_its_hook_tells
    hooks = []
    file = Object.new
    file.define_singleton_method(:after_worker_shutdown) { |&block| hooks << block }
    @workers.watch(launcher(nil, file))
    Process.wait(fork { exit! 1 })
    hooks.each { |hook| hook.call(Handle.new(4711, $?)) }
    assert_equal [["parent", 4711, 1]], (notes.map { |note| note.values_at("by", "pid", "exit") })
  end

  def test_a_kill_while_the_kernel_killed_for_memory_says_so
    @workers.ended(1, 9)
    kills(5)
    @workers.ended(2, 0)
    @workers.ended(3, 9)
    @workers.ended(4, 9)
    assert_equal [nil, nil, true, nil], notes.map { |note| note["oom_kill"] }
    assert_equal [Integer], notes.filter_map { |note| note["oom_window_ms"]&.class }
  end

  # The counter is of the whole group, and another process of it may have been the one.
  def test_a_kill_that_was_counted_before_explains_no_later_one
    counter = Diagctl::Puma::OomKills.new([@oom])
    now = Diagctl::Clock.now
    kills(5)
    [5, 10].each { |later| counter.look(now + later) }
    assert_nil counter.claim(now + 11), "it was counted before the look at 5"
    kills(6)
    assert_in_delta 7000, counter.claim(now + 12), 100, "counted since the look at 5"
    assert_nil counter.claim(now + 12), "each kill explains one worker"
  end

  # A large process takes a while to end, and the master may look meanwhile.
  def test_a_look_between_the_kill_and_the_end_of_the_worker_takes_nothing_away
    counter = Diagctl::Puma::OomKills.new([@oom])
    now = Diagctl::Clock.now
    counter.look(now + 5)
    kills(5)
    [5.1, 5.5, 10].each { |later| counter.look(now + later) }
    assert_in_delta 6000, counter.claim(now + 11), 100
  end

  def test_the_master_reads_the_counter_when_it_looks_after_its_workers
    runner = Runner.new([])
    counter = Diagctl::Puma::OomKills.new([@oom])
    looks = 0
    counter.define_singleton_method(:look) { looks += 1 }
    hook = Object.new
    hook.define_singleton_method(:after_worker_shutdown) { |&block| }
    Diagctl::Puma::Workers.new(@store, oom_kills: counter).watch(launcher(runner))
    runner.check
    other = Runner.new([])
    Diagctl::Puma::Workers.new(@store, oom_kills: counter).watch(launcher(other, hook))
    other.check
    assert_equal 2, looks
  end

  def test_a_worker_that_inherits_this_notes_nothing
    Process.wait(fork { @workers.ended(1, 9) })
    assert_empty notes
  end

  def test_the_counter_is_that_of_the_own_group_on_both_versions
    files = ->(groups) { Diagctl::Puma::OomKills.files(root: "/r", groups: groups) }
    assert_equal "/r/a.slice/memory.events", files.call("0::/a.slice\n").first
    assert_includes files.call("4:cpu,memory:/a\n0::/\n"), "/r/memory/a/memory.oom_control"
  end

  private

  def launcher(runner, file = Object.new)
    config = Object.new
    config.define_singleton_method(:configure) { |&block| block.call(nil, file, nil) }
    Struct.new(:config).new(config).tap { |launcher| launcher.instance_variable_set(:@runner, runner) }
  end

  def kills(number) = File.write(@oom, "oom #{number}\noom_kill #{number}\n")

  def path = File.join(@store, "samples.jsonl")

  def notes = File.readlines(path).map { |line| JSON.parse(line)["ended"] }
end
