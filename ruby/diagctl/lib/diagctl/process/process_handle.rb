# frozen_string_literal: true

module Diagctl
  # A child of ours to be killed, by a descriptor that stands for that very process (pidfd, Linux 5.3). Its number would
  # do for as long as nobody reaped it; but the host may reap for us at any moment (`Process.wait`, `Process.waitall`,
  # SIGCHLD ignored), and then the number may be another's.
  #
  # Opened right after the fork: no host can have gone through all other numbers by then. Without pidfd (older kernels,
  # no Fiddle) the number is used, by callers that have just seen that the child is not reaped.
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
      # From Linux 6.9 on the descriptor stands for the group too. Before, the number does while the child is not reaped
      # (then it is neither another process's nor another group's), which signal 0 tells.
      unless @pidfd && Libc.pidfd_send_signal(@pidfd.fileno, Signal.list["KILL"], Libc::PIDFD_SIGNAL_PROCESS_GROUP).zero?
        Process.kill(:KILL, -@pid) if @pidfd.nil? || Libc.pidfd_send_signal(@pidfd.fileno, 0).zero?
      end
    rescue SystemCallError
      nil # It leads no group yet.
    ensure
      kill
    end

    def close
      @pidfd&.close
    end
  end
end
