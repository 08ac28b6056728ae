# frozen_string_literal: true

module Diagctl
  # The child's side of a dump: the forked dumper isolates itself from the worker, streams the reports into `diagctl put`, and
  # turns into `diagctl finalize`. It does not depend on its worker, which may die after the fork (so no PR_SET_PDEATHSIG).
  #
  # Runs in the forked child only, on its only thread, a copy of the thread that forked. DumperHandle is the worker's side.
  #
  # @api private
  class DumperProcess
    # @param log [File, nil] becomes stderr
    # @param fork_time [IO] the worker writes here how many milliseconds the fork took
    # @param worker [Integer] pid of the worker
    def initialize(writer, lease:, log:, fork_time:, worker:)
      @writer = writer
      @lease = lease
      @fork_time = fork_time
      @worker = worker
      @isolation = Isolation.new(log: log, keep: [lease.io, fork_time])
    end

    # Never returns.
    #
    # @param collected [Hash{String=>String}] inline reports that the worker made
    # @param snapshots [Array<Grant::GrantedReport>]
    def run(collected, snapshots)
      @isolation.apply("#{@worker} for #{@writer.capture}")
      @writer.stand_by(snapshots)
      @writer.put_all(collected)
      snapshots.each do |granted|
        @writer.stream(granted)
        measure_copied_memory
      end
      measure_cost
      become_finalize
    rescue Exception => e # rubocop:disable Lint/RescueException
      # Not even SystemExit may unwind from here: the frames above belong to the worker.
      begin
        @writer.break_off("the dumper failed: #{e.class}: #{e.message}")
      rescue Exception # rubocop:disable Lint/RescueException
        nil
      end
    ensure
      exit!(1)
    end

    private

    # Runs before the exec, while these numbers are still those of the dump.
    def measure_cost
      metadata = @writer.metadata
      fork_ms = @fork_time.read_nonblock(32, exception: false)
      if fork_ms.is_a?(String)
        metadata["cost.fork_ms"] = fork_ms.to_f
        metadata["cost.pause_ms"] = (metadata["cost.pause_ms"] + fork_ms.to_f).round(3)
      end
      times = Process.times
      metadata["cost.dumper_cpu_ms"] = Clock.ms(times.utime + times.stime + times.cutime + times.cstime)
      attempt { metadata["cost.dumper_peak_rss_bytes"] = bytes("/proc/self/status", "VmHWM") }
    end

    # Counts the pages that worker and dumper no longer share, whichever of them wrote, and those that a walk had to itself. The
    # number only grows, because without garbage collection the dumper frees nothing. It is skipped when the worker is gone: then no
    # page is shared, and all would count.
    def measure_copied_memory
      attempt do
        copied = bytes("/proc/self/smaps_rollup", "Private_Dirty", "Private_Clean") + @writer.copied_by_walks
        @writer.metadata["cost.copied_bytes"] = copied if Process.ppid == @worker
      end
    end

    # @return [Integer] sum of the fields, which the kernel gives in kB
    def bytes(file, *fields)
      text = File.read(file)
      fields.sum { |field| text[/^#{field}:\s+(\d+)/, 1].to_i * 1024 }
    end

    def become_finalize
      descriptor = @lease.io.fileno
      argv = @writer.finalize_argv(lease_fd: descriptor)
      Process.exec(Spawn::UNSET.to_h { |name| [name, nil] }, [argv.first, argv.first], *argv.drop(1),
        0 => standard_input(@writer.records.to_s), descriptor => descriptor, close_others: true)
    end

    # The records that remain are short. They fit into a pipe where no file in memory can be had.
    def standard_input(text)
      file = Libc.memory_file("records")
      if file
        file.write(text)
        file.rewind
        return file
      end
      reader, writer = IO.pipe
      writer.write_nonblock(text, exception: false)
      writer.close
      reader
    end

    def attempt
      yield
    rescue SystemCallError
      nil
    end
  end
end
