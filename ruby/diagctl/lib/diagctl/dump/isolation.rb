# frozen_string_literal: true

module Diagctl
  # Cuts the forked dumper off from its worker: signals, standard streams, descriptors, priority.
  # Runs once in the forked child, on its only thread, before anything else.
  #
  # @api private
  class Isolation
    # Signals that Ruby does not let a program trap.
    RESERVED = %w[EXIT KILL STOP SEGV BUS ILL FPE VTALRM].freeze
    NICE = 19
    # The kernel's OOM killer takes the dumper before anything else.
    OOM_FIRST = "1000"
    TITLE = "diagctl: dumping"

    # The first act of the child: from here on the kernel ends it at its deadline, whatever it is doing, and its group can be
    # killed. The application may have trapped the alarm, and a C extension may have blocked it.
    #
    # @param deadline [Float] seconds
    def self.bound(deadline)
      Signal.trap("ALRM", "SYSTEM_DEFAULT")
      Libc.unblock(CaptureWriter::ENDING)
      Libc.alarm(deadline)
      Process.setpgid(0, 0)
    rescue SystemCallError
      nil
    end

    # @param log [File, nil] becomes stderr
    # @param keep [Array<IO>] descriptors that stay open
    def initialize(log:, keep:)
      @log = log
      @keep = keep
    end

    # @param title [String] what the dumper dumps, for `ps`
    def apply(title)
      reset_signals
      redirect_standard_streams
      close_descriptors
      # Before the process becomes undumpable: after that /proc/self belongs to root.
      attempt { File.write("/proc/self/oom_score_adj", OOM_FIRST) }
      attempt { Process.setpriority(Process::PRIO_PROCESS, 0, NICE) }
      Libc.idle_io
      # A dump and its compression would keep one and a half processors busy. The kernel has just placed this process on the
      # least busy one, and all other processes can use the rest.
      Libc.stay_on_this_cpu
      Libc.undumpable
      Process.setproctitle("#{TITLE} #{title}")
    end

    private

    # SYSTEM_DEFAULT, because with DEFAULT Ruby would raise SignalException here. SIGPIPE is an exception: a put that died
    # must show as EPIPE.
    def reset_signals
      Signal.list.each_key do |name|
        next if RESERVED.include?(name)

        Signal.trap(name, %w[PIPE CHLD CLD].include?(name) ? "DEFAULT" : "SYSTEM_DEFAULT")
      rescue ArgumentError, Errno::EINVAL
        next
      end
    end

    # By descriptor number, because the application may have replaced $stdout. The worker's log may be a pipe, and its reader
    # waits for the end.
    def redirect_standard_streams
      null = File.open(File::NULL, "r+")
      { 0 => null, 1 => null, 2 => @log || null }.each do |descriptor, target|
        IO.for_fd(descriptor, autoclose: false).reopen(target)
      rescue SystemCallError
        next
      end
    end

    # An inherited client socket would keep that client's connection open, and an inherited listener its port. Ruby refuses to
    # close the descriptors that its timer thread needs (ArgumentError); a process without them aborts.
    def close_descriptors
      keep = [0, 1, 2, *@keep.map(&:fileno)]
      Dir.children("/proc/self/fd").map(&:to_i).each do |descriptor|
        next if keep.include?(descriptor)

        IO.for_fd(descriptor).close
      rescue ArgumentError, Errno::EBADF
        next
      rescue SystemCallError
        Libc.close(descriptor)
      end
    end

    def attempt
      yield
    rescue SystemCallError
      nil
    end
  end
end
