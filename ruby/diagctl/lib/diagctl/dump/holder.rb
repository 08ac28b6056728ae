# frozen_string_literal: true

module Diagctl
  # The note in a staging directory that names a process which holds the lease: `.holder-PID.json`. A poll that finds the lease
  # overdue ends that process, and only that one: pid namespace, pid, start time and boot must agree.
  #
  # Worker, right after the fork, and forked dumper. Allocates little, because the dumper's objects are in its dump.
  #
  # @api private
  module Holder
    # Field 22 of /proc/PID/stat, counted from the end of the name.
    START = /.*\) (?:\S+ ){19}(\d+)/m
    FLAGS = File::WRONLY | File::CREAT | File::EXCL | File::NOFOLLOW

    class << self
      # Reads what is the same for this process and its children, before any fork.
      def prepare
        @namespace ||= File.readlink("/proc/self/ns/pid")[/\d+/]
        @boot ||= File.read("/proc/sys/kernel/random/boot_id").chomp
      rescue SystemCallError
        nil
      end

      # @param staging [String]
      # @return [void] nothing depends on this note but the end of a process that hangs
      def write(staging, pid)
        started = File.read("/proc/#{pid}/stat")[START, 1]
        file = File.open("#{staging}/.holder-#{pid}.json", FLAGS, 0o600)
        owner = Process.euid.zero? ? File.stat(staging).uid : 0
        file.chown(owner, nil) unless owner.zero?
        file.syswrite(%({"pid":#{pid},"start_ticks":#{started},"boot_id":"#{@boot}","pid_ns":#{@namespace}}))
      rescue SystemCallError
        nil
      ensure
        file&.close
      end
    end
  end
end
