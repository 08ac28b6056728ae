# frozen_string_literal: true

require_relative "../helper"

class LeaseTest < Minitest::Test
  include Sandbox

  def test_the_file_is_created_private_and_closed_on_exec
    Diagctl::Lease.open(@store) do |lease|
      assert_equal 0o600, lease.io.stat.mode & 0o777
      assert_predicate lease.io, :close_on_exec?
      refute_equal Diagctl::Spawn::LEASE_FD, lease.io.fileno
    end
    assert_nil Diagctl::Lease.in_flight
  end

  def test_every_open_is_a_description_of_its_own
    Diagctl::Lease.open(@store) do |one|
      assert_equal 0, one.io.flock(File::LOCK_EX | File::LOCK_NB)
      refute lease_free?
    end
    assert lease_free?
  end

  def test_a_symbolic_link_is_not_followed
    target = File.join(@dir, "precious")
    File.write(target, "x")
    File.symlink(target, File.join(@store, "lease.lock"))
    error = assert_raises(Diagctl::Problem) { Diagctl::Lease.open(@store) { flunk } }
    assert_match(/lease.lock is a symbolic link and is not followed \(hint/, error.message)
    assert_equal "x", File.read(target)
  end

  def test_a_store_that_is_gone_is_a_problem_and_not_an_exception_of_another_kind
    error = assert_raises(Diagctl::Problem) { Diagctl::Lease.open("/nonexistent/store") { flunk } }
    assert_match(/cannot be opened: .*hint/, error.message)
  end

  def test_root_gives_a_file_that_it_created_to_the_owner_of_the_store
    skip "not root" unless Process.euid.zero?

    File.chown(65_534, 65_534, @store)
    Diagctl::Lease.open(@store) { |_| }
    assert_equal 65_534, File.stat(File.join(@store, "lease.lock")).uid
  end

  # Puma's fork_worker and the application's own forks.
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

  # The parent's copy is closed and nobody said LOCK_UN: only a copy in the child could still hold the lock.
  def test_a_forked_child_of_the_host_does_not_keep_the_lease
    assert_equal "\"here\\n\"\n0\n", forked_while_a_lease_is_open('GC.disable; into.puts("here")')
  end

  # The File of the parent's thread is garbage in the child and closes its number, which must still be its own.
  def test_the_guard_does_not_let_the_garbage_collector_close_a_file_of_the_application
    child = 'open = Array.new(30) { File.open("/proc/self/stat") }; thread = ready = go = nil; GC.start; ' \
      'into.puts(open.all? { |io| io.gets })'
    assert_equal "\"true\\n\"\n0\n", forked_while_a_lease_is_open(child)
  end

  # Its copy of the pipe would keep `diagctl put` from the end of its input: for as long as it lives, or until the put is killed.
  def test_a_forked_child_of_the_host_does_not_keep_a_report_open
    out, = ruby(<<~RUBY)
      Diagctl::Runtime.load
      Diagctl::ForkGuard.install
      Diagctl::Spawn.open([#{binary("exec cat").dump}, "--dir", #{@store.dump}, "put"], stdin: true) do |put|
        pid = fork { sleep }
        p put.finish(timeout: 5, input: "a report").to_a
        Process.kill(:KILL, pid)
        Process.wait(pid)
      end
      p Diagctl::Spawn.feeding
    RUBY
    assert_equal "[:exited, 0, \"a report\", \"\"]\n{}\n", out
  end

  def test_the_dumpers_fork_goes_beneath_the_hooks_of_the_application
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
