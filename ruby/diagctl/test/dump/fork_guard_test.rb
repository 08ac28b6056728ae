# frozen_string_literal: true

require_relative "../helper"

class ForkGuardTest < Minitest::Test
  include Sandbox

  # A fork such as Puma's fork_worker or the application's own.
  def forked_while_a_lease_is_open(in_the_child)
    ruby(<<~RUBY).first
      Diagctl::ForkGuard.install
      ready, go = Queue.new, Queue.new
      thread = Thread.new do
        Diagctl::Lease.open(#{@store.dump}) do |lease|
          lease.io.flock(File::LOCK_EX)
          ready << true
          go.pop
        end
      end
      ready.pop
      out, into = IO.pipe
      pid = fork do
        out.close
        #{in_the_child}
        sleep
      end
      into.close
      p out.gets
      go << true
      thread.join
      p File.open(#{"#{@store}/lease.lock".dump}, "r+").flock(File::LOCK_EX | File::LOCK_NB)
      Process.kill(:KILL, pid)
      Process.wait(pid)
    RUBY
  end

  # The parent has closed its copy, and nobody has unlocked it: only a copy in the child could still hold the lock.
  def test_a_forked_child_of_the_application_does_not_keep_the_lease
    assert_equal "\"here\\n\"\n0\n", forked_while_a_lease_is_open('GC.disable; into.puts("here")')
  end

  # The File object of the parent's thread is garbage in the child and closes its descriptor number, which must still be its own.
  def test_the_garbage_collector_of_the_child_closes_no_file_of_the_application
    child = 'open = Array.new(30) { File.open("/proc/self/stat") }; thread = ready = go = nil; GC.start; ' \
      'into.puts(open.all? { |io| io.gets })'
    assert_equal "\"true\\n\"\n0\n", forked_while_a_lease_is_open(child)
  end

  # With a copy of the pipe, the child would keep `diagctl put` from the end of its input, until the child ends or the put is
  # killed.
  def test_a_forked_child_of_the_application_does_not_keep_a_report_open
    out, = ruby(<<~RUBY)
      Diagctl::Runtime.load
      Diagctl::ForkGuard.install
      Diagctl::Spawn.open([#{binary("exec cat").dump}, "--dir", #{@store.dump}, "put"], stdin: true) do |put|
        pid = fork { sleep }
        p put.finish(timeout: 5, input: "a report").to_a
        Process.kill(:KILL, pid)
        Process.wait(pid)
      end
      p Diagctl::Pipes.open_stdins
    RUBY
    assert_equal "[:exited, 0, \"a report\", \"\"]\n{}\n", out
  end

  def test_the_dumpers_fork_bypasses_the_hooks_of_the_application
    code = <<~RUBY
      Process.singleton_class.prepend(Module.new { def _fork = super.tap { $stderr.puts "hook" } })
      Diagctl::ForkGuard.install
      pid = Diagctl::ForkGuard.raw_fork
      exit!(0) if pid.zero?
      Process.wait(pid)
      p :done
    RUBY
    assert_equal ":done\n", ruby(code).first
  end
end
