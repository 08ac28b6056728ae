# frozen_string_literal: true

require_relative "../helper"

class ProcessHandleTest < Minitest::Test
  include Sandbox

  LAST_PID = "/proc/sys/kernel/ns_last_pid"

  def test_a_child_is_killed_with_its_process_group
    assert_kills_the_group
  end

  # Before Linux 6.9 a pidfd stands for one process only. Before 5.3 there is none.
  def test_on_older_kernels_the_group_is_killed_by_its_number
    send_signal = Diagctl::Libc.method(:pidfd_send_signal)
    plain = ->(descriptor, signal, flags = 0) { flags.zero? ? send_signal.call(descriptor, signal) : -1 }
    replacing(Diagctl::Libc, :pidfd_send_signal, plain) { assert_kills_the_group }
    replacing(Diagctl::Libc, :pidfd_open, ->(_pid) {}) { assert_kills_the_group }
  end

  def assert_kills_the_group
    out, theirs = IO.pipe
    pid = fork do
      Process.setpgid(0, 0)
      grandchild = fork { sleep }
      theirs.puts(grandchild)
      sleep
    end
    grandchild = out.gets.to_i
    handle = Diagctl::ProcessHandle.new(pid)
    handle.kill_group
    assert_equal Signal.list["KILL"], Process.wait2(pid).last.termsig
    eventually("the grandchild is dead") { !running?(grandchild) }
    refute handle.kill, "there is nobody to be killed"
  ensure
    handle&.close
    [out, theirs].each(&:close)
  end

  # The application reaps the child (by Process.waitall, say), and the machine has used up all other pids in the meantime.
  def test_a_process_that_reuses_the_pid_is_not_killed
    skip "pids cannot be chosen here" unless File.writable?(LAST_PID)

    Diagctl::Libc.load
    first = fork { exit! }
    handle = Diagctl::ProcessHandle.new(first)
    Process.wait(first)
    other = other_with_pid(first) or skip("pid #{first} was not to be had")
    refute handle.kill
    handle.kill_group
    assert_nil Process.wait(other, Process::WNOHANG), "a stranger was killed"
    Process.kill(:KILL, other)
    assert_equal first, Process.wait(other)
  ensure
    handle&.close
  end

  def running?(pid)
    File.read("/proc/#{pid}/stat").rpartition(") ").last[0] != "Z"
  rescue SystemCallError
    false
  end

  # May take several attempts, because other programs start processes too. The child leads its own group, as a dumper does.
  def other_with_pid(wanted)
    100.times do
      File.write(LAST_PID, (wanted - 1).to_s)
      pid = fork do
        Process.setpgid(0, 0)
        sleep
      end
      if pid == wanted
        eventually("its group") { Process.getpgid(pid) == pid }
        return pid
      end
      Process.kill(:KILL, pid)
      Process.wait(pid)
    end
    nil
  end
end
