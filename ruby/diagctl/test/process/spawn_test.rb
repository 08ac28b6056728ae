# frozen_string_literal: true

require_relative "../helper"

# The same behaviour with posix_spawn(3) and with Ruby's own spawn.
module SpawnBehaviour
  include Sandbox

  def run_binary(body, **options)
    path = binary(body)
    Diagctl::Spawn.run([path, "--dir", @store, "acquire"], timeout: 5, **options)
  end

  def test_output_and_status_are_returned
    outcome = run_binary('echo out; echo err >&2; exit 10')
    assert_equal [:exited, 10, "out\n", "err\n"], outcome.to_a
  end

  def test_more_data_than_a_pipe_holds_passes_in_both_directions
    data = Random.bytes(700_000)
    outcome = run_binary("cat", input: data)
    assert_predicate outcome, :success?
    assert_equal data, outcome.stdout
  end

  def test_a_program_that_does_not_read_its_input_is_not_an_error
    outcome = run_binary("exit 3", input: "x" * 1_000_000)
    assert_equal [:exited, 3], outcome.to_a.first(2)
  end

  def test_the_childs_pipes_are_blocking
    outcome = run_binary("grep -h flags /proc/self/fdinfo/0 /proc/self/fdinfo/1 /proc/self/fdinfo/2", input: "x")
    flags = outcome.stdout.scan(/flags:\t(\d+)/).map { |octal,| octal.to_i(8) }
    assert_equal 3, flags.size, outcome.to_a.inspect
    assert(flags.all? { |value| (value & File::NONBLOCK).zero? }, flags.inspect)
  end

  def test_a_hanging_program_is_killed_and_reaped
    started = Diagctl::Clock.now
    pid, outcome = hanging { |spawn| [spawn.pid, spawn.finish(timeout: 0.3)] }
    assert_equal :timeout, outcome.kind
    assert_operator Diagctl::Clock.now - started, :<, 3
    assert_reaped(pid)
    assert_match(/`diagctl acquire` did not end within 0.3 s and was killed/, outcome.describe("`diagctl acquire`"))
  end

  def hanging(&block)
    Diagctl::Spawn.open([binary("exec sleep 60"), "--dir", @store, "acquire"], &block)
  end

  def test_a_thread_killed_while_it_waits_ends_its_program
    pid = nil
    thread = Thread.new { hanging { |spawn| (pid = spawn.pid) && spawn.finish(timeout: 30) } }
    eventually("it waits") { pid && thread.stop? }
    thread.kill.join
    assert_reaped(pid)
  end

  # In this narrow window the program is running, but its pid has not been returned yet.
  def test_a_thread_killed_while_it_starts_a_program_ends_it
    pid = nil
    slow = Class.new(Diagctl::Spawn) do
      define_method(:launch) do |*arguments|
        pid = super(*arguments)
        sleep 0.01 until Thread.pending_interrupt?
        pid
      end
    end
    path = binary("exec sleep 60")
    thread = Thread.new { slow.open([path, "--dir", @store, "acquire"]) { flunk("its thread was told to end") } }
    eventually("it runs") { pid }
    thread.kill.join
    assert_reaped(pid)
  end

  def test_a_timeout_of_the_application_ends_the_program
    pid = nil
    assert_raises(Timeout::Error) do
      Timeout.timeout(0.2) { hanging { |spawn| (pid = spawn.pid) && spawn.finish(timeout: 30) } }
    end
    assert_reaped(pid)
  end

  def test_a_grandchild_that_keeps_the_pipes_open_does_not_delay_the_result
    started = Diagctl::Clock.now
    outcome = run_binary("sleep 4 & echo done")
    assert_equal "done\n", outcome.stdout
    assert_operator Diagctl::Clock.now - started, :<, 3
  end

  def test_a_signal_a_flood_and_a_missing_program_are_distinguished
    assert_match(/was killed by SIGSEGV/, run_binary("kill -SEGV $$").describe("it"))
    assert_equal :flooded, run_binary("exec yes").kind
    assert_equal :missing, Diagctl::Spawn.run(["/nonexistent/diagctl"], timeout: 1).kind
  end

  def test_stderr_is_kept_up_to_a_limit_and_drained_beyond
    outcome = run_binary("head -c 1000000 /dev/zero >&2; echo ok")
    assert_equal "ok\n", outcome.stdout
    assert_equal Diagctl::Pipes::STDERR_LIMIT, outcome.stderr.bytesize
  end

  def test_the_program_inherits_the_lease_and_nothing_else
    File.open(File.join(@store, "lease.lock"), "w") do |lease|
      socket, peer = UNIXSocket.pair
      socket.close_on_exec = false
      outcome = run_binary("exec ls -l /proc/self/fd", lease: lease)
      beyond = outcome.stdout.scan(%r{ (\d+) -> (.*)}).reject { |fd, target| fd.to_i < 3 || target.match?(%r{\A/proc/\d+/fd\z}) }
      assert_equal [["3", lease.path]], beyond
      [socket, peer].each(&:close)
    end
  end

  def test_the_environment_is_passed_on_without_the_preload
    ENV["DIAGCTL_TEST_MARK"] = "seen"
    ENV["LD_PRELOAD_NOT"] = "kept"
    ENV["LD_PRELOAD"] = ""
    outcome = run_binary("env")
    assert_match(/^DIAGCTL_TEST_MARK=seen$/, outcome.stdout)
    assert_match(/^LD_PRELOAD_NOT=kept$/, outcome.stdout)
    refute_match(/^LD_PRELOAD=/, outcome.stdout)
  ensure
    %w[DIAGCTL_TEST_MARK LD_PRELOAD_NOT LD_PRELOAD].each { |name| ENV.delete(name) }
  end

  def test_no_descriptor_and_no_child_is_left_behind
    run_binary("true")
    before = Dir.children("/proc/self/fd").size
    5.times { run_binary("echo x; exit 1", input: "y") }
    5.times { Diagctl::Spawn.run(["/nonexistent/diagctl"], timeout: 1) }
    # There may be fewer: the collector closes what earlier tests left open.
    assert_operator Dir.children("/proc/self/fd").size, :<=, before
    assert_raises(Errno::ECHILD) { Process.wait(-1, Process::WNOHANG) }
  end

  # Forty waits for the GVL of 100 ms each would take four seconds.
  def test_system_calls_at_a_fork_do_not_wait_for_a_computing_thread
    out, = ruby(<<~RUBY)
      Diagctl::Libc.load
      Thread.new { loop {} }
      started = Diagctl::Clock.now
      open = Array.new(20) { [Diagctl::Libc.memory_file("test"), Diagctl::Libc.pidfd_open(Process.pid)] }
      took = Diagctl::Clock.now - started
      p open.flatten.all?(IO), took < 2 || took
    RUBY
    assert_equal "true\ntrue\n", out
  end

  def test_a_status_taken_by_the_application_does_not_cause_an_endless_wait
    outcome = Diagctl::Spawn.open([binary("echo answer"), "--dir", @store, "acquire"]) do |spawn|
      Process.wait(spawn.pid)
      spawn.finish(timeout: 5)
    end
    assert_equal [:unknown, nil, "answer\n"], outcome.to_a.first(3)
  end
end

class PosixSpawnTest < Minitest::Test
  include SpawnBehaviour

  def setup
    super
    assert_predicate Diagctl::PosixSpawn, :available?
  end

  # As in the dumper, which runs without garbage collection and starts a program before it dumps.
  def test_the_values_of_the_environment_never_enter_the_heap_dump
    dump = File.join(@dir, "dump")
    code = <<~RUBY
      Diagctl::Runtime.load
      GC.disable
      Diagctl::Spawn.run(["/bin/true"], timeout: 5)
      File.open(#{dump.dump}, "w") { |io| ObjectSpace.dump_all(output: io) }
    RUBY
    assert_equal "", ruby(code, env: { "SOME_SECRET" => "hunter2-hunter2", "LD_PRELOAD" => "libc.so.6" }).first
    refute_includes File.read(dump), "hunter2-hunter2"
  end
end

class RubySpawnTest < Minitest::Test
  include SpawnBehaviour

  def setup
    super
    Diagctl::PosixSpawn.instance_variable_set(:@available, false)
  end

  def teardown
    Diagctl::PosixSpawn.instance_variable_set(:@available, nil)
    super
  end
end

class UnprivilegedSpawnTest < Minitest::Test
  include Sandbox

  # The tests may run as any user. As root, this one drops privileges with setpriv.
  def test_both_kinds_of_spawn_work_without_privileges
    skip "not root: the other tests of this file ran without privileges" unless Process.euid.zero?

    FileUtils.chmod(0o755, @dir)
    FileUtils.cp_r(LIB, File.join(@dir, "lib"))
    path = binary("id -u; exit 10")
    FileUtils.chown_R(65_534, nil, @dir)
    code = <<~RUBY
      Diagctl::Runtime.load
      [nil, false].each do |way|
        Diagctl::PosixSpawn.instance_variable_set(:@available, way)
        p Diagctl::Spawn.run([#{path.dump}, "--dir", #{@store.dump}, "acquire"], timeout: 5).to_a
      end
    RUBY
    prefix = %w[setpriv --reuid 65534 --clear-groups]
    out, = Open3.capture2e({ "HOME" => @dir }, *prefix, RbConfig.ruby, "-I#{@dir}/lib", "-rdiagctl", stdin_data: code)
    assert_equal "[:exited, 10, \"65534\\n\", \"\"]\n" * 2, out
  end

  # A process at its limit of open files polls in vain, again and again, and must not use up what is left.
  def test_at_the_limit_of_open_files_no_pipe_end_stays_open
    path = binary("cat >/dev/null; exit 0")
    out, = ruby(<<~RUBY)
      Diagctl::Runtime.load
      Process.setrlimit(:NOFILE, 64, 64)
      GC.disable
      argv = [#{path.dump}, "--dir", #{@store.dump}, "x"]
      open = -> { (0..63).count { |number| Diagctl::Libc.open?(number) } }
      kinds = (0..10).flat_map do |free|
        held = Array.new(64 - open.call) { File.open("/dev/null") }
        held.pop(free).each(&:close)
        before = open.call
        kinds = [nil, "input"].map { |input| Diagctl::Spawn.run(argv, timeout: 10, input: input).kind }
        (Diagctl::Lease.open(#{@store.dump}) { |_| } rescue kinds << :lease)
        held.each(&:close)
        raise "\#{open.call - before + held.size} left open with \#{free} free" unless open.call == before - held.size
        kinds
      end
      p kinds.tally
    RUBY
    assert_match(/\A\{:missing=>\d+, :lease=>\d+, :exited=>\d+\}|\A\{missing: \d+, lease: \d+, exited: \d+\}/, out)
  end
end
