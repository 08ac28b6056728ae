# frozen_string_literal: true

require_relative "../helper"

# Our children and the application's own `Process.wait`.
class ChildrenTest < Minitest::Test
  include Sandbox

  # Resque counts its children this way.
  def test_waiting_for_any_child_passes_over_ours_and_our_outcome_is_not_lost
    path = binary("sleep 0.3; echo said; exit 4")
    out, = ruby(<<~RUBY)
      Diagctl::Runtime.load
      Diagctl::Children.install
      results = Array.new(2) { Queue.new }
      ours = Array.new(2) { |i| Thread.new { results[i] << Diagctl::Spawn.run([#{path.dump}, "--dir", #{@store.dump}, "x"], timeout: 10).to_a } }
      theirs = fork { sleep 0.6; exit!(7) }
      p Process.wait == theirs, $?.exitstatus
      p results.map { |result| result.pop.first(3) }
      sleep 0.1 until ours.none?(&:alive?)
      p (Process.wait2(-1, Process::WNOHANG) rescue $!.class)
      theirs = fork { exit!(8) }
      p Process.waitall.map { |pid, status| [pid == theirs, status.exitstatus] }
    RUBY
    assert_equal "true\n7\n[[:exited, 4, \"said\\n\"], [:exited, 4, \"said\\n\"]]\nErrno::ECHILD\n[[true, 8]]\n", out
  end

  def test_a_program_that_ends_before_its_pid_is_known_is_passed_over_too
    path = binary("exit 4")
    out, = ruby(<<~RUBY)
      Diagctl::Runtime.load
      Diagctl::Children.install
      Diagctl::PosixSpawn.singleton_class.prepend(Module.new { def call(...) = super.tap { sleep 0.2 } })
      outcome = Queue.new
      theirs = fork { sleep 0.6; exit!(7) }
      Thread.new { outcome << Diagctl::Spawn.run([#{path.dump}, "--dir", #{@store.dump}, "x"], timeout: 10).to_a }
      p Process.wait == theirs, $?.exitstatus, outcome.pop.first(2)
    RUBY
    assert_equal "true\n7\n[:exited, 4]\n", out
  end

  # Puma in single mode restarts by exec. The program of a poll that is under way is then a child of the new program.
  def test_a_program_that_was_running_at_a_restart_by_exec_is_reaped
    path = binary('sleep 0.5; exit 10')
    again = File.join(@dir, "again.rb")
    File.write(again, <<~RUBY)
      require "diagctl"
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      children = -> { File.read("/proc/self/task/\#{Process.pid}/children").split }
      puts children.call.empty? ? "none" : "some"
      limit = Diagctl::Clock.now + 20
      sleep 0.01 until children.call.empty? || Diagctl::Clock.now > limit
      puts children.call.size
    RUBY
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 0.01 }
      Diagctl.start
      sleep 0.01 until File.exist?(#{File.join(@store, "calls").dump})
      exec(#{RbConfig.ruby.dump}, "-I#{LIB}", #{again.dump})
    RUBY
    assert_equal "some\n0\n", out.lines.grep_v(/\[diagctl\]/).join
  end
end
