# frozen_string_literal: true

module Diagctl
  # Kills a child of this process, and only that child, through a pidfd (Linux 5.3). A pid is safe until the child is reaped, but
  # the application may reap it at any moment (`Process.wait`, `Process.waitall`, an ignored SIGCHLD), and then another process may
  # get its number.
  #
  # Opened right after the fork, when the kernel cannot have reused the pid. Without pidfd (older kernels, no Fiddle) the pid is
  # used, by callers that have just checked that the child is not reaped.
  # Worker and forked dumper.
  #
  # @api private
  class ProcessHandle
    attr_reader :pid

    def initialize(pid)
      @pid = pid
      @pidfd = Libc.pidfd_open(pid)
    end

    # @return [Boolean] whether the signal was sent
    def kill
      return Libc.pidfd_send_signal(@pidfd.fileno, Signal.list["KILL"]).zero? if @pidfd

      Process.kill(:KILL, @pid) == 1
    rescue SystemCallError
      false
    end

    # Kills the child and the process group that it leads.
    def kill_group
      # From Linux 6.9 on a pidfd can stand for the group. On older kernels the number is safe as long as the child is not reaped,
      # because then no other process or group can have it; signal 0 tests that.
      unless @pidfd && Libc.pidfd_send_signal(@pidfd.fileno, Signal.list["KILL"], Libc::PIDFD_SIGNAL_PROCESS_GROUP).zero?
        Process.kill(:KILL, -@pid) if @pidfd.nil? || Libc.pidfd_send_signal(@pidfd.fileno, 0).zero?
      end
    rescue SystemCallError
      nil # The child does not lead a group yet.
    ensure
      kill
    end

    def close
      @pidfd&.close
    end
  end
end
