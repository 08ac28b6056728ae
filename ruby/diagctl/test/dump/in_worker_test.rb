# frozen_string_literal: true

require_relative "../capturing"

# What is made in the worker itself: inline reports, and the heap where a rule says `snapshot = "in_process"`.
class InWorkerTest < Minitest::Test
  include Capturing

  def test_a_capture_without_snapshot_does_not_fork
    @config.report(:cache) { |io| io.write("42 entries") }
    result = capture(reports: { "gc_stat" => "inline", "threads" => "inline", "ruby" => "inline", "cache" => "inline" })
    assert_equal ["granted", CAPTURE], [result.verdict, result.capture]
    assert_nil @agent.dumper
    assert_equal Process.pid, JSON.parse(put("ruby")).fetch("pid")
    assert_equal "42 entries", put("cache")
    assert_match(/--set=cost.pause_ms=[\d.]+ .*--set=versions.ruby=#{RUBY_VERSION}/, finalize_line)
    refute_match(/fork_ms|--failed/, finalize_line)
    assert lease_free?
    assert_match(/\Acapture #{CAPTURE} \(r\) stored after/, @logger.lines.last)
  end

  def test_a_report_that_cannot_be_made_is_named_and_costs_no_other
    @config.report(:raises) { |_| raise "secret\nline" }
    @config.report(:empty) { |_| }
    capture(reports: { "raises" => "inline", "empty" => "inline", "nope" => "inline", "puma" => "inline", "threads" => "inline" })
    line = finalize_line
    assert_includes line, "--failed=raises=report raises raised RuntimeError: secret line"
    assert_includes line, "--failed=empty=it wrote nothing"
    assert_includes line, "--failed=nope=not available in this process"
    assert_includes line, "--failed=puma=not available in this process"
    assert_equal ["threads"], calls("put").map { |call| call.split.last }
  end

  # The lease is in the hand of this process still: on another description `abort` would wait for it, and refuse.
  def test_a_finalize_that_dies_is_told_to_the_store_with_the_lease_that_was_granted
    capture(reports: { "threads" => "inline" }, finalize: "kill -KILL $$", abort: 'flock -n 3 && touch "$dir/held"')
    why = "`diagctl finalize` was killed by SIGKILL"
    assert_equal ["abort --lease-fd=3 #{CAPTURE} --reason=#{why}"], calls("abort")
    assert_path_exists File.join(@store, "held")
    assert_equal "capture #{CAPTURE} (r): #{why}", @logger.lines.last
    assert lease_free?
  end

  def test_a_report_that_hangs_does_not_keep_the_lease
    @config.callback_timeout = 0.2
    @config.report(:hangs) { |_| sleep }
    capture(reports: { "hangs" => "inline" })
    assert_includes finalize_line, "--failed=hangs=report hangs did not return within 0.2 s"
    assert lease_free?
  ensure
    Diagctl::Callback.running.delete("report hangs")&.kill
  end

  def test_no_inline_report_is_begun_after_the_budget
    @config.inline_budget = 0.05
    @config.report(:slow) { |io| sleep(0.1) && io.write("x") }
    capture(reports: { "slow" => "inline", "threads" => "inline" })
    assert_includes finalize_line, "--failed=threads=not begun: the inline reports before it took more than 0.05 s"
    assert_equal "x", put("slow")
  end

  # The kernel reaps for a host that ignores SIGCHLD, and nobody learns how a program ended.
  def test_what_is_stored_is_not_called_failed_where_the_host_takes_the_status
    before = Signal.trap("CHLD", "IGNORE")
    reports = { "threads" => "inline", "object_counts" => "snapshot" }
    capture(reports: reports, snapshot: "in_process", finalize: "echo '{\"id\":\"#{CAPTURE}\"}'")
    assert_equal reports.keys, calls("put").map { |call| call.split.last }
    refute_match(/--failed/, finalize_line)
    assert_empty calls("abort")
    assert_match(/\Acapture #{CAPTURE} \(r\) stored after/, @logger.lines.last)
  ensure
    Signal.trap("CHLD", before)
  end

  def test_in_process_does_not_fork
    capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process")
    assert_nil @agent.dumper
    assert_operator put("heap_dump").lines.size, :>, 1000
    refute_match(/fork_ms/, finalize_line)
    inline, pause = %w[inline_ms pause_ms].map { |cost| finalize_line[/--set=cost.#{cost}=([\d.]+)/, 1].to_f }
    assert_operator pause, :>, inline, "the host stood still while the heap was walked"
  end

  def test_in_process_a_put_that_stops_reading_is_killed_at_the_deadline
    started = Diagctl::Clock.now
    capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", deadline: 1, put: "exec sleep 60")
    assert_operator Diagctl::Clock.now - started, :<, 8
    # By its watchdog, or on Ruby 3.4, where the dump holds the GVL, after the write has failed.
    assert_match(/--failed=heap_dump=`diagctl put` (was killed by SIGKILL|did not end within 1 s and was killed)/, finalize_line)
  end

  # Ruby 3.4 cuts a dump short, or loses bytes in the middle of it, where a write is interrupted.
  def test_in_process_signals_leave_the_dump_whole
    with_signals do
      capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", put: SLOW_READER)
      assert_whole_dump
    end
  end

  def test_in_process_a_process_that_ends_does_not_wait_for_a_put_that_stops_reading
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

  def test_in_process_a_put_ends_with_the_thread_that_fed_it
    thread = Thread.new do
      capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", put: 'echo $$ > "$dir/pid"; exec sleep 60')
    end
    path = File.join(@store, "pid")
    pid = eventually("put runs") { File.size?(path) && File.read(path).to_i }
    eventually("the pipe is full") { thread.stop? }
    thread.kill.join
    assert_reaped(pid)
    assert lease_free?
    refute(Thread.list.any? { |left| left.name == "diagctl watchdog" && left.join(1).nil? })
  end
end
