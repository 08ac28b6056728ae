# frozen_string_literal: true

require_relative "support/torture"
require_relative "support/hanging"

# A dumper that hangs at any step of its life, with and without a living worker: the lease comes back, and only that dumper is
# ended. (The worker and the alarm end it where they can; these are the cases in which both fail.)
class OverdueTest < Torture::Case
  include Torture::Hanging

  DEADLINE = 'min_free_disk = "1%"
memory_headroom = 0.1
deadline = "4s"'

  STEPS = { # Ruby code that stops the dumper at this step
    "before its first line" => 'Diagctl::Isolation.singleton_class.prepend(Module.new { def bound(*) = Process.kill(:STOP, Process.pid) })',
    "before it is registered" => "module Diagctl::Holder; def self.write(*) = nil; end\n" \
      'Diagctl::Isolation.singleton_class.prepend(Module.new { def bound(*) = Process.kill(:STOP, Process.pid) })',
    "while it closes descriptors" => 'Diagctl::Isolation.prepend(Module.new { def close_descriptors(*) = Process.kill(:STOP, Process.pid) })',
    "in a mark function, in the walker" => 'hang_in("mark")',
    "in a mark function" => "hang_in('mark')\n" \
      "Diagctl::Reports::HeapDump.prepend(Module.new { def walks?(*) = false })",
    "in GC, in a free function" => "hang_in('free')\n" \
      "Diagctl::Isolation.prepend(Module.new { def apply(*) = super.tap { GC.enable; GC.start } })",
    "in put" => 'Diagctl::Reports::HeapDump.prepend(Module.new { def call(*) = Process.kill(:STOP, Process.pid) })',
    "before finalize" => 'Diagctl::DumperProcess.prepend(Module.new { def become_finalize = Process.kill(:STOP, Process.pid) })',
    "in finalize" => 'Diagctl::DumperProcess.prepend(Module.new { def standard_input(_) = IO.pipe.then { |reader, _writer| ' \
      'fork { sleep 0.01 until File.read("/proc/#{Process.ppid}/cmdline").include?("finalize"); Process.kill(:STOP, Process.ppid); sleep }; reader } })'
  }.freeze
  INLINE_STORED = ["in put", "before finalize", "in finalize", "in a mark function, in the walker", "in a mark function"].freeze

  # A C extension whose functions hang outside of the worker, and garbage that only it may free.
  HANG_IN = <<~RUBY
    def hang_in(function)
      ENV["HANG_IN"] = function
      require ENV.fetch("HANGING")
      $hanging = Array.new(100) { Hanging.make }
      Thread.new { loop { 100.times { Hanging.make }; sleep 0.01 } }
    end
  RUBY

  def test_a_dumper_that_stops_at_any_step_is_ended_without_its_worker
    each_step { |script| E2E::Processes.signal(:KILL, script.pid) }
  end

  def test_a_dumper_that_stops_at_any_step_is_ended_with_its_worker_stopped
    each_step { |script| E2E::Processes.signal(:STOP, script.pid) }
  end

  # The record of a dumper is not trusted where it does not fit: the pid may belong to another process by now.
  def test_a_process_that_is_not_the_dumper_is_never_ended
    configure(guards: DEADLINE)
    dumper = granted("heap_dump")
    _pipe, put = dumper.start_put("heap_dump")
    registered = wait_until("put is registered") { Dir[File.join(@store, "staging/*/.holder-#{put}.json")].first }
    it = JSON.parse(File.read(registered))
    dumper.close
    E2E::Processes.signal(:STOP, put)
    bystander = Process.spawn("sleep", "1000")
    polls = start_script
    others = { "another start" => it.merge("pid" => bystander), "another boot" => it.merge("pid" => bystander, "boot_id" => "0"),
               "another namespace" => identity(bystander).merge("pid_ns" => 1), "it polls" => identity(polls.pid),
               "init" => it.merge("pid" => 1) }
    others.each_value.with_index { |other, i| File.write(File.join(File.dirname(registered), ".holder-9#{i}.json"), JSON.generate(other)) }
    wait_until("the lease is taken back", deadline: 60) { poll && !E2E::Processes.alive?(put) }
    [bystander, polls.pid].each { |pid| assert E2E::Processes.alive?(pid) }
    # It would answer the next request itself.
    E2E::Processes.signal(:KILL, polls.pid)
    wait_until("the script is gone") { !E2E::Processes.alive?(polls.pid) }
    assert_next_capture(@store, "afterwards")
  end

  # A process of somebody else that inherited the descriptor, without any record of a dumper.
  def test_a_stranger_that_holds_the_descriptor_is_not_ended
    configure(guards: DEADLINE)
    dumper = granted("gc_stat")
    stranger = Process.spawn("sleep", "1000", dumper.lease.fileno => dumper.lease.fileno)
    dumper.close
    record = File.join(@store, "lease.json")
    aged = JSON.parse(File.read(record)).then { |it| it.merge("granted_boot_ms" => it["granted_boot_ms"] - 60_000, "deadline_boot_ms" => it["deadline_boot_ms"] - 60_000) }
    File.write(record, JSON.generate(aged))
    state = File.join(@store, "state.json")
    until_ms = File.read(state)[/"lease_until":\{"boot_ms":(\d+)/, 1].to_i
    # Without its checksum the file is believed.
    File.write(state, File.read(state).sub(/"check":"\h+",/, "").sub(until_ms.to_s, (until_ms - 60_000).to_s))
    3.times { poll }
    assert E2E::Processes.alive?(stranger)
    E2E::Processes.signal(:KILL, stranger)
  end

  # The lease does not outlive a boot, but what was staged does, and so do the pids in it.
  def test_after_a_restart_of_the_node_what_is_whole_is_published_and_nobody_is_ended
    dumper = granted("gc_stat", "heap_dump")
    assert dumper.put("gc_stat", "{}").ok?
    dumper.close
    bystander = Process.spawn("sleep", "1000")
    staging = File.join(@store, "staging", dumper.capture)
    File.write(File.join(staging, ".holder-#{bystander}.json"), JSON.generate(identity(bystander).merge("boot_id" => "earlier")))
    %w[state.json lease.json].each do |file|
      path = File.join(@store, file)
      boot = File.read("/proc/sys/kernel/random/boot_id").chomp
      # Without its checksum the file is believed.
      File.write(path, File.read(path).sub(/"check":"\h+",/, "").gsub(boot, "00000000-0000-0000-0000-000000000000"))
    end
    poll
    assert E2E::Processes.alive?(bystander)
    meta = meta(captures.first.fetch("id"))
    assert_equal [dumper.capture, [true, false]], [meta["id"], meta["reports"].map { |report| !report["file"].nil? }]
  end

  private

  def each_step
    steps = Torture::FULL ? STEPS : STEPS.to_a.sample(2, random: Random.new(Torture::SEED)).to_h
    configure(guards: DEADLINE)
    extension = hanging_extension
    Torture.each_parallel(steps.to_a, threads: 4) do |step, code|
      store = File.join(@root, "store-#{Torture.next_number}")
      Dir.mkdir(store, 0o700)
      env = self.env(DIAGCTL_DIR: store, RUBYLIB: E2E::PumaServer::LOAD_PATH, HANGING: extension)
      root = "#{store}.d".tap { |dir| Dir.mkdir(dir) }
      File.write(File.join(root, "hang.rb"), "require \"diagctl\"\nDiagctl::Runtime.load\n#{HANG_IN}#{code}\n")
      script = E2E::Script.new(root, env.merge("RUBYOPT" => "-r#{root}/hang.rb"))
      wait_until("it polls: #{step}", tell: script.method(:log)) { File.exist?(File.join(store, "FORMAT")) }
      assert on(store, "request", "gc_stat", "heap_dump", "--reason", step, env: env).ok?
      dumper = wait_until("its dumper stops: #{step}", deadline: 60, tell: script.method(:log)) do
        E2E::Processes.descendants(script.pid).find { |process| state_of(process.pid) == "T" }
      end
      yield script
      wait_until("the dumper is ended: #{step}", deadline: 60) { poll(store, env) && !E2E::Processes.alive?(dumper.pid) }
      E2E::Processes.signal(:KILL, script.pid)
      assert_sound(store, kept: {}, what: step)
      stored = on(store, "list", "--json", env: env).json.fetch("captures").size
      # The inline report is whole once the dump has begun.
      assert_equal 2, stored, step if INLINE_STORED.include?(step)
    end
  end

  def state_of(pid)
    File.read("/proc/#{pid}/stat").rpartition(") ").last[0]
  rescue SystemCallError
    nil # It has just ended.
  end

  # A poll of another process: this one.
  def poll(store = @store, env = self.env)
    E2E::LeaseHolder.new(store, env).then { |other| other.acquire("--event", "nothing").tap { other.close } }
  end

  def identity(pid)
    { "pid" => pid, "start_ticks" => File.read("/proc/#{pid}/stat").rpartition(") ").last.split[19].to_i,
      "boot_id" => File.read("/proc/sys/kernel/random/boot_id").chomp, "pid_ns" => File.readlink("/proc/#{pid}/ns/pid")[/\d+/].to_i }
  end
end
