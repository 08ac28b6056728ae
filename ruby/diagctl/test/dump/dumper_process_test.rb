# frozen_string_literal: true

require_relative "../capturing"

# The dump as the store and the worker see it.
class DumperProcessTest < Minitest::Test
  include Capturing

  def test_a_heap_dump_comes_from_a_forked_child_with_its_cost
    result = capture(reports: { "gc_stat" => "inline", "object_counts" => "snapshot", "heap_dump" => "snapshot" })
    assert_predicate result, :granted?
    line = finalize_line
    %w[cost.fork_ms cost.pause_ms cost.inline_ms cost.spawn_ms cost.dumper_cpu_ms cost.copied_bytes].each do |cost|
      assert_match(/--set=#{cost}=\d/, line)
    end
    assert_equal %w[gc_stat object_counts heap_dump], calls("put").map { |call| call.split.last }
    assert_whole_dump
    counts = JSON.parse(put("object_counts"))
    assert_equal 1, counts["classes"].count { |row| row["class"] == "String" }
    assert_operator counts["count_objects"]["T_STRING"], :>, 100
    eventually("reaped and logged") { !@agent.busy? && @logger.lines.any?(/stored after/) }
  end

  # When a write is interrupted, Ruby 3.4 cuts a dump short or loses bytes in the middle.
  def test_signals_leave_the_dump_whole
    capture(reports: { "heap_dump" => "snapshot" }, put: SLOW_READER)
    child = eventually("the dumper") { @agent.dumper }
    with_signals(child.pid) { assert_whole_dump }
  end

  def test_a_put_that_fails_is_named_with_its_own_message
    capture(reports: { "heap_dump" => "snapshot" }, put: "head -c 100 >/dev/null; echo 'no space left' >&2; exit 1")
    assert_match(/--failed=heap_dump=`diagctl put` ended with status 1: no space left/, finalize_line)
  end

  # The dumper may be killed before it can say that the report is not whole.
  def test_a_put_sees_no_end_of_a_report_that_broke_off
    replacing(ObjectSpace, :count_objects, ->(*) { raise "broke off" }) do
      capture(reports: { "object_counts" => "snapshot" }, put: 'cat >"$dir/put.$3"; echo >"$dir/ended"')
      assert_match(/--failed=object_counts=RuntimeError: broke off/, finalize_line)
    end
    refute File.exist?(File.join(@store, "ended"))
  end

  def test_the_message_of_finalize_reaches_the_log
    capture(reports: { "heap_dump" => "snapshot" }, finalize: "echo 'disk is full' >&2; exit 1")
    eventually("logged") { !@agent.busy? && @logger.lines.any?(/`diagctl finalize` ended with status 1: disk is full/) }
  end

  def test_the_kernel_ends_a_dumper_at_its_deadline
    capture(reports: { "heap_dump" => "snapshot" }, deadline: 1, put: "exec sleep 4")
    eventually("killed by its alarm") { !@agent.busy? && @logger.lines.any?(/was killed by SIGALRM after [\d.]+ s: the dump was not finished within 1 s \(guards\.deadline\)/) }
    assert_match(/--broken-off --why=.*guards\.deadline/, calls("finalize").fetch(0))
  end

  def test_the_worker_may_be_killed_right_after_the_fork
    path = granting_binary(reports: { "heap_dump" => "snapshot" }, put: WAITING)
    _, status = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      Process.kill(:KILL, Process.pid) if Diagctl.capture(event: :worker_memory_limit).granted?
    RUBY
    assert_equal Signal.list["KILL"], status.termsig
    refute lease_free?, "the orphan holds the lease"
    go
    finalize_line
    assert_operator each_line_of_the_dump.count, :>, 1000
    eventually("the lease is free") { lease_free? }
  ensure
    go
  end
end
