# frozen_string_literal: true

require_relative "../capturing"

# The moment of the fork: nothing of the application follows into the child, and the fork waits for nothing of the application.
class ForkPointTest < Minitest::Test
  include Capturing

  # A C extension's free function that hangs behaves like such a finalizer.
  def test_no_finalizer_runs_in_the_dumper_and_every_dump_completes
    path = granting_binary(reports: { "heap_dump" => "snapshot" }, deadline: 20)
    grant = File.read(File.join(@store, "grant"))
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      WORKER = Process.pid
      LAST_WORDS = proc { Process.pid == WORKER or (File.write(#{File.join(@dir, "ran").dump}, "x", mode: "a"); sleep) }
      Thread.new do
        loop do
          20_000.times { ObjectSpace.define_finalizer(Object.new, LAST_WORDS) }
          GC.start(immediate_sweep: false)
          sleep 0.2
        end
      end
      agent = Diagctl.instance_variable_get(:@agent)
      4.times do
        File.write(#{File.join(@store, "grant").dump}, #{grant.dump})
        # The poll thread may take the grant.
        Diagctl.capture while File.exist?(#{File.join(@store, "grant").dump})
        sleep 0.01 until agent.dumper.nil? && !agent.busy?
      end
      puts GC.disable
    RUBY
    assert_equal "false\n", out.lines.grep_v(/\[diagctl\]/).join
    refute_path_exists File.join(@dir, "ran")
    assert_equal 4, calls("finalize").size, out
  end

  # The collector of a busy worker is hardly ever at rest: the worker ends the collection itself.
  def test_a_busy_collector_delays_the_fork_by_two_seconds_at_most
    stop = false
    kept = Array.new(50_000) { "x" * 30 }
    busy = Thread.new { kept[rand(kept.size)] = Array.new(200) { |i| i.to_s * 3 }.first until stop }
    3.times do
      assert_forks { ours = Diagctl::ForkPoint.resting?; GC.disable && ours }
      refute GC.disable, "the collector of the worker stayed off"
      GC.enable
    end
  ensure
    stop = true
    busy.join
  end

  def test_a_collector_that_the_application_switched_off_stays_off
    GC.disable
    assert_forks { true }
    assert GC.disable
  ensure
    GC.enable
  end

  # Ruby flushes its standard streams before it forks. A log collector that hangs leaves a full pipe behind.
  def test_the_fork_does_not_wait_for_a_full_stdout
    reader, writer = IO.pipe
    writer.sync = false
    Thread.new { writer.write_nonblock("x" * 65_536, exception: false) while true && writer.write_nonblock("x" * 4096, exception: false) != :wait_writable }.join
    writer.nonblock = false
    writer.write("buffered")
    with_stdout(writer) { assert_forks { true } }
  ensure
    reader.close
    begin
      writer.close
    rescue Errno::EPIPE
      nil
    end
  end

  def test_a_closed_or_broken_stdout_breaks_no_dump
    closed = File.open(File::NULL, "w").tap(&:close)
    reader, broken = IO.pipe
    broken.sync = false
    broken.write("buffered")
    reader.close
    [closed, broken].each { |stream| with_stdout(stream) { assert_forks { true } } }
  ensure
    begin
      broken.close
    rescue Errno::EPIPE
      nil
    end
  end

  def test_other_threads_write_through_during_the_fork
    reader, writer = IO.pipe
    with_stdout(writer) do
      real = Diagctl::ForkGuard.method(:raw_fork)
      replacing(Diagctl::ForkGuard, :raw_fork, -> { Thread.new { $stdout.puts("here"); $stdout.flush }.join && real.call }) do
        assert_forks { true }
      end
      assert_same writer, $stdout
    end
    writer.close
    assert_equal "here\n", reader.read
  end

  # On Ruby 3.1 the fork would discard it, and a process that exits would wait for this thread for ever.
  def test_a_kill_that_waits_gives_the_grant_back_and_is_not_lost
    waiting = Queue.new
    thread = Thread.new do
      Thread.current.report_on_exception = false
      Thread.handle_interrupt(Object => :never) do
        waiting << true
        sleep 0.01 until Thread.pending_interrupt?
        capture(reports: { "heap_dump" => "snapshot" })
      end
    ensure
      waiting << :ended
    end
    waiting.pop
    thread.kill
    assert thread.join(20), "the kill was lost"
    assert_empty calls("finalize")
    assert_match(/\Aabort .*about to end/, calls("abort").first)
    assert lease_free?
  end

  def test_a_process_with_ractors_is_not_forked_and_its_entry_says_why
    path = granting_binary(reports: { "gc_stat" => "inline", "heap_dump" => "snapshot" })
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Warning[:experimental] = false
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      other = Ractor.new { Ractor.receive }
      puts Diagctl.capture.verdict
      p Diagctl.instance_variable_get(:@agent).dumper
      other.send(:end)
    RUBY
    assert_equal "granted\nnil\n", out.lines.grep_v(/\[diagctl\]/).join
    assert_match(/--failed=heap_dump=not forked: 2 Ractors run in this process, and a forked child could hang/, finalize_line)
    refute_match(/--failed=gc_stat/, finalize_line)
  end

  private

  # Asserts that a child is forked in time, and that the block is true in it.
  def assert_forks
    pid = Timeout.timeout(20) { Diagctl::ForkPoint.fork }
    exit!(yield ? 0 : 1) if pid.zero?
    _, status = Process.wait2(pid)
    assert_predicate status, :success?
  end

  def with_stdout(stream)
    before = $stdout
    $stdout = stream
    yield
  ensure
    $stdout = before
  end
end
