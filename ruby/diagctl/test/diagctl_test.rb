# frozen_string_literal: true

require_relative "helper"

# The methods of the module Diagctl.
class DiagctlTest < Minitest::Test
  include Sandbox

  def test_nothing_happens_on_require
    out, = ruby(<<~RUBY)
      p Thread.list.size, Process.singleton_class.include?(Diagctl::ForkGuard), $LOADED_FEATURES.grep(/objspace|fiddle/)
    RUBY
    assert_equal "1\nfalse\n[]\n", out
  end

  def test_it_loads_without_rubygems
    out, = ruby("p defined?(Gem), Diagctl.name", env: { "RUBYOPT" => "--disable-gems" })
    assert_equal "nil\n\"Diagctl\"\n", out
  end

  def test_when_off_there_is_no_thread_and_calls_do_nothing
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "0", "DIAGCTL_BIN" => binary("exit 1") })
      p Diagctl.start, Thread.list.size, Diagctl.event(:a), Diagctl.capture(event: :a).verdict, Diagctl.stop
    RUBY
    assert_equal "[diagctl] off in this process: DIAGCTL_ENABLED is 0\nfalse\n1\nfalse\n\"disabled\"\ntrue\n", out
    assert_empty calls
  end

  def test_an_invalid_value_of_the_switch_means_off_and_is_logged_once
    out, = ruby("2.times { p Diagctl.start }", env: { "DIAGCTL_ENABLED" => "on" })
    assert_equal 1, out.scan("[diagctl]").size
    assert_match(/DIAGCTL_ENABLED="on"/, out)
    assert_equal 2, out.scan(/^false$/).size
  end

  def test_a_missing_binary_is_logged_once_and_nothing_starts
    out, status = ruby("2.times { p Diagctl.start }; p Thread.list.size",
      env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => "/nonexistent/diagctl" })
    assert_predicate status, :success?
    assert_equal 1, out.scan("[diagctl]").size
    assert_match(%r{DIAGCTL_BIN=/nonexistent/diagctl is not an executable file}, out)
    assert_match(/^1$/, out)
  end

  def test_a_thread_that_cannot_be_created_is_logged_and_the_next_start_tries_again
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER) })
      $full = true
      Thread.singleton_class.prepend(Module.new { def new(*) = $full ? raise(ThreadError, "can't create Thread") : super })
      p Diagctl.start, Diagctl.started?
      $full = false
      p Diagctl.start, Diagctl.started?, Diagctl.stop
    RUBY
    assert_equal %w[false false true true true], out.lines(chomp: true).grep_v(/\[diagctl\]/)
    assert_match(/not started: ThreadError: can't create Thread/, out)
  end

  def test_invalid_names_of_events_roles_and_workers_never_raise
    out, status = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER) })
      p Diagctl.start(role: "--dir"), Diagctl.start(role: 1), Diagctl.start(name: "a\\nb")
      # Longer (in bytes) than the program accepts, or not UTF-8: every poll would fail.
      p Diagctl.start(name: "\\u0436" * 65), Diagctl.start(name: "\\xff")
      p Diagctl.start(role: "r", name: "\\u0436" * 64)
      p Diagctl.event(nil), Diagctl.event("a b"), Diagctl.event("\\xff"), Diagctl.event("a".encode("UTF-16LE"))
      p Diagctl.capture(event: 7).verdict, Diagctl.event(:ok)
      Diagctl.stop
    RUBY
    assert_predicate status, :success?
    assert_equal %w[false false false false false true false false false false "failed" true], out.lines(chomp: true).grep_v(/\[diagctl\]/)
  end

  def test_the_poll_thread_has_a_name_low_priority_and_is_fork_safe
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER) })
      Diagctl.start
      thread = Thread.list.find { |t| t.name == "diagctl poller" }
      p thread.thread_variable_get(:fork_safe), thread.priority, thread.report_on_exception, thread.abort_on_exception
      Diagctl.start
      p Thread.list.count { |t| t.name == "diagctl poller" }
      pid = fork { p Diagctl.started?, Thread.list.size; p Diagctl.start, Diagctl.started?; Diagctl.stop }
      Process.wait(pid)
      Diagctl.stop
    RUBY
    assert_equal "true\n-2\nfalse\nfalse\n1\nfalse\n1\ntrue\ntrue\n", out
  end

  # A worker killer that calls it still has to end the worker.
  def test_a_capture_waits_for_a_hanging_binary_only_for_capture_timeout
    path = binary("exec sleep 60")
    [@store, nil].each do |dir|
      out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path, "DIAGCTL_DIR" => dir })
        Diagctl.configure do |c|
          c.capture_timeout = 0.3
          c.first_poll_within = 1e6
        end
        Diagctl.start
        result = Diagctl.capture(event: :worker_memory_limit)
        puts result.verdict, result.reason
      RUBY
      assert_match(/\Afailed\n`diagctl .*` did not end within 0.3 s and was killed/, out)
    end
  end
end
