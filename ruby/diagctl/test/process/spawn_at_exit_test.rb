# frozen_string_literal: true

require_relative "../helper"

# Processes that end while a program of theirs is running.
class SpawnAtExitTest < Minitest::Test
  include Sandbox

  HANGS = "echo $$ > \"$dir/pid\"; trap '' TERM; exec sleep 60"

  def running?
    File.read("/proc/#{File.read(File.join(@store, "pid")).to_i}/cmdline").include?("sleep")
  rescue Errno::ENOENT
    false
  end

  {
    "returns" => "",
    "exits" => "exit 0",
    "raises" => "raise 'no'",
    "is told to end" => "Process.kill(:TERM, $$); sleep"
  }.each do |how, code|
    define_method("test_a_process_that_#{how.tr(" ", "_")}_leaves_no_hanging_acquire") do
      started = Diagctl::Clock.now
      ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(HANGS) })
        Diagctl.configuration.first_poll_within = 0.001
        Diagctl.start
        sleep 0.01 until File.size?(#{File.join(@store, "pid").dump})
        #{code}
      RUBY
      refute_nil File.size?(File.join(@store, "pid"))
      refute_predicate self, :running?
      assert_operator Diagctl::Clock.now - started, :<, 5
    end
  end

  # The child has the objects, but neither the thread nor the program.
  def test_a_forked_process_that_exits_does_not_end_its_parents_acquire
    out, = ruby(<<~RUBY)
      Diagctl::Runtime.load
      waits = false
      thread = Thread.new do
        Diagctl::Spawn.open([#{binary("sleep 1; echo whole").dump}, "--dir", #{@store.dump}, "acquire"]) do |spawn|
          waits = true
          spawn.finish(timeout: 30)
        end
      end
      Thread.pass until waits && thread.stop?
      2.times { Process.wait(fork { exit }) }
      p thread.value.to_a
    RUBY
    assert_equal %([:exited, 0, "whole\\n", ""]\n), out
  end
end
