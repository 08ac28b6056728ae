# frozen_string_literal: true

module Diagctl
  # The life of the forked dumper: it lets go of everything that is the worker's, streams the reports into
  # `diagctl put`, becomes `diagctl finalize`, and returns to no one. It is on its own: a worker that dies after the
  # fork takes nothing along (so no PR_SET_PDEATHSIG).
  #
  # Runs in the forked child only, on its one thread, which is a copy of the thread that forked.
  #
  # @api private
  class DumperProcess
    # The kernel's alarm ends this process earlier; a bound is given all the same.
    PUT_TIMEOUT = 86_400
    # Signals that Ruby does not let a program trap.
    RESERVED = %w[EXIT KILL STOP SEGV BUS ILL FPE VTALRM].freeze
    NICE = 19
    OOM_FIRST = "1000"
    TITLE = "diagctl: dumping"

    # @param log [File, nil] takes stderr
    # @param fork_time [IO] where the worker says how many milliseconds the fork took
    # @param worker [Integer] its pid
    def initialize(writer, lease, log, fork_time, worker, deadline)
      @writer = writer
      @lease = lease
      @log = log
      @fork_time = fork_time
      @worker = worker
      @deadline = deadline
    end

    # Never returns.
    def run(collected, snapshots)
      detach
      @writer.put_all(collected)
      snapshots.each do |granted|
        @writer.stream(granted)
        measure_copies
      end
      measure
      become_finalize
    rescue Exception => e # rubocop:disable Lint/RescueException
      # Not even SystemExit may unwind from here: the frames above belong to the worker.
      begin
        @writer.abort("the dumper failed: #{e.class}: #{e.message}")
      rescue Exception # rubocop:disable Lint/RescueException
        nil
      end
    ensure
      exit!(1)
    end

    private

    def detach
      reset_signals
      redirect_standard_streams
      close_descriptors
      # Only now: it ends the collection that was under way at the fork. What that frees may speak on its way out, on a
      # connection that the worker goes on using (mysql2 closes a statement so).
      GC.disable
      # Before it stops being dumpable: /proc/self then belongs to root.
      attempt { File.write("/proc/self/oom_score_adj", OOM_FIRST) }
      attempt { Process.setpriority(Process::PRIO_PROCESS, 0, NICE) }
      Libc.idle_io
      # A dump and its compression would keep one and a half processors busy. The kernel has just put this process on the one
      # that had least to do; everything else can go where they are not.
      Libc.stay_on_this_cpu
      Libc.undumpable
      Libc.alarm(@deadline)
      attempt { Process.setpgid(0, 0) }
      Process.setproctitle("#{TITLE} #{@worker} for #{@writer.capture}")
    end

    # SYSTEM_DEFAULT, because DEFAULT would let Ruby raise SignalException here. But SIGPIPE: a put that died must
    # become EPIPE.
    def reset_signals
      Signal.list.each_key do |name|
        next if RESERVED.include?(name)

        Signal.trap(name, %w[PIPE CHLD CLD].include?(name) ? "DEFAULT" : "SYSTEM_DEFAULT")
      rescue ArgumentError, Errno::EINVAL
        next
      end
    end

    # Descriptor by descriptor and not through $stdout, which the application may have replaced. The worker's log may
    # be a pipe whose reader waits for its end.
    def redirect_standard_streams
      null = File.open(File::NULL, "r+")
      { 0 => null, 1 => null, 2 => @log || null }.each do |descriptor, target|
        IO.for_fd(descriptor, autoclose: false).reopen(target)
      rescue SystemCallError
        next
      end
    end

    # An inherited client socket would keep that client's connection open, an inherited listener the port. Ruby
    # refuses the descriptors that its timer thread needs (ArgumentError): a process that loses those aborts.
    def close_descriptors
      keep = [0, 1, 2, @lease.io.fileno, @fork_time.fileno]
      Dir.children("/proc/self/fd").map(&:to_i).each do |descriptor|
        next if keep.include?(descriptor)

        IO.for_fd(descriptor).close
      rescue ArgumentError, Errno::EBADF
        next
      rescue SystemCallError
        Libc.close(descriptor)
      end
    end

    # What the dump took, read while this process is still the one that took it.
    def measure
      fork_ms = @fork_time.read_nonblock(32, exception: false)
      if fork_ms.is_a?(String)
        @writer.metadata["cost.fork_ms"] = fork_ms.to_f
        @writer.metadata["cost.pause_ms"] = (@writer.metadata["cost.pause_ms"] + fork_ms.to_f).round(3)
      end
      times = Process.times
      cpu = times.utime + times.stime + times.cutime + times.cstime
      @writer.metadata["cost.dumper_cpu_ms"] = Clock.ms(cpu)
      attempt { @writer.metadata["cost.dumper_peak_rss_bytes"] = kilobytes("/proc/self/status", "VmHWM") }
    end

    # Pages that worker and dumper no longer share, whichever of them wrote. They only become more: without garbage
    # collection the dumper gives nothing back. A worker that is gone shares nothing, and all pages would count.
    def measure_copies
      attempt do
        copied = kilobytes("/proc/self/smaps_rollup", "Private_Dirty", "Private_Clean")
        @writer.metadata["cost.copied_bytes"] = copied if Process.ppid == @worker
      end
    end

    def kilobytes(file, *fields)
      text = File.read(file)
      fields.sum { |field| text[/^#{field}:\s+(\d+)/, 1].to_i * 1024 }
    end

    def become_finalize
      descriptor = @lease.io.fileno
      argv = @writer.finalize_argv(lease_fd: descriptor)
      Process.exec(Spawn::UNSET.to_h { |name| [name, nil] }, [argv.first, argv.first], *argv.drop(1),
        descriptor => descriptor, close_others: true)
    end

    def attempt
      yield
    rescue SystemCallError
      nil
    end
  end
end
