# frozen_string_literal: true

require_relative "../helper"

# Blocks of the application run on one thread, with a deadline.
class CallbackTest < Minitest::Test
  def call(label = "block", timeout: 5, &block) = Diagctl::Callback.call(label, timeout, &block)

  # A library that keeps a connection for each thread, as Active Record does, has one for all polls.
  def test_all_blocks_run_on_one_thread_that_stays
    connections = Array.new(20) { |i| call("gauge #{i}") { Thread.current.object_id } }
    assert_equal 1, connections.uniq.size
    refute_equal Thread.current.object_id, connections.first
  end

  def test_a_block_that_raises_or_ends_its_thread_is_named_and_the_next_one_runs
    {
      -> { raise "flag service is down" } => "block raised RuntimeError: flag service is down",
      -> { exit } => "block raised SystemExit: exit",
      -> { throw :done } => "block raised UncaughtThrowError: uncaught throw :done",
      -> { Thread.exit } => "block ended its own thread",
      -> { raise Diagctl::Unavailable, "no report" } => "no report"
    }.each do |block, message|
      error = assert_raises(Diagctl::Unavailable) { call(&block) }
      assert_equal message, error.message
      assert_equal :well, call { :well }
    end
  end

  def test_a_late_block_keeps_its_thread_is_not_called_again_and_delays_no_other
    go = Queue.new
    stuck = nil
    error = assert_raises(Diagctl::Unavailable) { call("late", timeout: 0.05) { (stuck = Thread.current) && go.pop } }
    assert_equal "late did not return within 0.05 s", error.message
    error = assert_raises(Diagctl::Unavailable) { call("late") { flunk } }
    assert_equal "late has still not returned from an earlier call", error.message
    refute_equal stuck, call("other") { Thread.current }
    go << :now
    assert stuck.join(5), "a thread that was late ends"
    assert_equal :again, call("late") { :again }
  end

  def test_a_thread_that_the_application_kills_is_replaced
    thread = call { Thread.current }
    thread.kill.join
    assert_equal :well, call { :well }
  end

  def test_a_caller_that_is_killed_leaves_no_thread_behind
    go = Queue.new
    inside = Queue.new
    caller = Thread.new { call("killed") { inside << Thread.current; go.pop } }
    thread = inside.pop
    caller.kill.join
    go << :now
    assert thread.join(5)
  end

  def test_a_forked_child_has_a_thread_of_its_own
    call { :warm }
    reader, writer = IO.pipe
    pid = fork do
      writer << call { :in_the_child }
      exit!
    end
    writer.close
    Process.wait(pid)
    assert_equal "in_the_child", reader.read
  end

  def test_in_a_rails_application_a_block_runs_within_the_executor
    log = []
    executor = Object.new
    executor.define_singleton_method(:wrap) { |&block| (log << :run) && block.call.tap { log << :complete } }
    rails = Module.new { define_singleton_method(:application) { Struct.new(:executor).new(executor) } }
    Object.const_set(:Rails, rails)
    assert_equal 7, call { (log << :block) && 7 }
    assert_equal %i[run block complete], log
  ensure
    Object.send(:remove_const, :Rails)
  end
end
