# frozen_string_literal: true

module Diagctl
  # Cuts the forked dumper off from its worker: signals, standard streams, descriptors, priority.
  # Runs once in the forked child, on its only thread, before anything else.
  #
  # @api private
  class Isolation
    # Signals that Ruby does not let a program trap.
    RESERVED = %w[EXIT KILL STOP SEGV BUS ILL FPE VTALRM].freeze
    # Made at boot, because the objects of the dumper are in its dump.
    SIGNALS = Signal.list.except(*RESERVED).freeze
    # SIGPIPE is an exception: a put that died must show as EPIPE.
    RUBYS = { "PIPE" => true, "CHLD" => true, "CLD" => true }.freeze
    # The size of the kernel's table of descriptors (one more than the highest that was ever open, or larger), and the signals that
    # are ignored or caught.
    STATUS = /^FDSize:\s+(\d+).*^SigIgn:\s+(\h+)\s+SigCgt:\s+(\h+)/m
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

    # Runs what changes nothing in the process (see Runtime).
    def self.rehearse
      isolation = new(log: nil, keep: [$stderr])
      isolation.__send__(:reset_signals, STATUS.match(File.read("/proc/self/status"))[2].hex & 0)
      isolation.__send__(:close_descriptors, 0)
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
      status = STATUS.match(File.read("/proc/self/status"))
      reset_signals(status[2].hex | status[3].hex)
      redirect_standard_streams
      close_descriptors(status[1].to_i)
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

    # SYSTEM_DEFAULT, because with DEFAULT Ruby would raise SignalException here. Only what is caught or ignored is touched.
    def reset_signals(handled)
      SIGNALS.each do |name, number|
        Signal.trap(number, RUBYS.key?(name) ? "DEFAULT" : "SYSTEM_DEFAULT") if handled.anybits?(1 << (number - 1))
      rescue ArgumentError, Errno::EINVAL
        next
      end
    end

    # By descriptor number, because the application may have replaced $stdout. The worker's log may be a pipe, and its reader
    # waits for the end.
    def redirect_standard_streams
      null = File.open(File::NULL, "r+")
      redirect(0, null)
      redirect(1, null)
      redirect(2, @log || null)
    end

    def redirect(descriptor, target)
      Libc.dup2(target.fileno, descriptor) || IO.for_fd(descriptor, autoclose: false).reopen(target)
    rescue SystemCallError
      nil
    end

    # An inherited client socket would keep that client's connection open, and an inherited listener its port. Ruby refuses to
    # close the descriptors that its timer thread needs (ArgumentError); a process without them aborts.
    #
    # One IO object closes all of them: a name and an object for each would double a worker's files in its own dump.
    def close_descriptors(table_size)
      keep = @keep.map(&:fileno).push(0, 1, 2)
      closer = IO.allocate
      (3...table_size).each do |descriptor|
        next if keep.include?(descriptor) || !Libc.open?(descriptor)

        closer.__send__(:initialize, descriptor)
        closer.close
      rescue ArgumentError, SystemCallError
        next
      end
    end

    def attempt
      yield
    rescue SystemCallError
      nil
    end
  end
end
