# frozen_string_literal: true

require_relative "../capturing"

# Snapshot reports made in the worker itself (`snapshot = "in_process"`), and the watchdog of their `diagctl put`.
class InProcessTest < Minitest::Test
  include Capturing

  def test_in_process_does_not_fork
    capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process")
    assert_nil @agent.dumper
    assert_operator each_line_of_the_dump.count, :>, 1000
    refute_match(/fork_ms/, finalize_line)
    inline, pause = %w[inline_ms pause_ms].map { |cost| finalize_line[/--set=cost.#{cost}=([\d.]+)/, 1].to_f }
    assert_operator pause, :>, inline, "the host stood still while the heap was walked"
  end

  def test_in_process_a_put_that_stops_reading_is_killed_at_the_deadline
    started = Diagctl::Clock.now
    capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", deadline: 1, put: "exec sleep 60")
    assert_operator Diagctl::Clock.now - started, :<, 8
    # Killed by the watchdog, or on Ruby 3.4, where the dump holds the GVL, after the write has failed.
    assert_match(/--failed=heap_dump=`diagctl put` (was killed by SIGKILL|did not end within 1 s and was killed)/, finalize_line)
  end

  # When a write is interrupted, Ruby 3.4 cuts a dump short or loses bytes in the middle.
  def test_in_process_signals_leave_the_dump_whole
    with_signals do
      capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", put: SLOW_READER)
      assert_whole_dump
    end
  end

  def test_in_process_exit_does_not_wait_for_a_put_that_stops_reading
    pid = fork do
      Thread.new do
        capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", deadline: 60, put: 'touch "$dir/reads"; exec sleep 60')
      end
      sleep 0.01 until File.exist?(File.join(@store, "reads"))
      exit 7
    end
    status = eventually("it ends") { Process.wait2(pid, Process::WNOHANG)&.last }
    assert_equal 7, status.exitstatus
  end

  def test_in_process_the_put_ends_with_the_thread_that_writes
    thread = Thread.new do
      capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", put: 'echo $$ > "$dir/pid"; exec sleep 60')
    end
    path = File.join(@store, "pid")
    pid = eventually("put runs") { File.size?(path) && File.read(path).to_i }
    eventually("the pipe is full") { thread.stop? }
    thread.kill.join
    assert_reaped(pid)
    # Another program publishes what was made.
    eventually("the lease is free") { lease_free? }
    refute(Thread.list.any? { |left| left.name == "diagctl watchdog" && left.join(1).nil? })
  end
end
