# frozen_string_literal: true

module Diagctl
  # One run of the diagctl program: an argument list without a shell, bounded output, a deadline, and always reaped.
  # Worker (poll thread, or the caller of Diagctl.capture) and forked dumper.
  #
  # @api private
  class Spawn
    # The lease's descriptor number in the program, so that everything above it can be closed.
    LEASE_FD = 3
    # Seconds to wait for a program after SIGKILL. In an uninterruptible system call it lasts longer; then a thread takes it over.
    KILL_GRACE = 2.0
    # A preloaded library (jemalloc, say) is meant for the application, not for a program that lives for milliseconds.
    UNSET = %w[LD_PRELOAD].freeze
    # Constants and positional arguments, here and below: Ruby makes a hash for each call otherwise, and those of the dumper are in
    # its dump.
    SHIELDED = { Object => :never }.freeze

    # @return [Outcome] never raises for a failure of the program
    def self.run(argv, timeout:, lease: nil, input: nil, out: nil)
      self.open(argv, lease: lease, stdin: !input.nil?, out: out) { |spawn| spawn.finish(timeout: timeout, input: input) }
    rescue SystemCallError => e
      Outcome.new(:missing, nil, "", e.message)
    end

    # Starts a program that outlives this process, and waits for nothing. For a thread that is being ended.
    def self.leave(argv, lease:, input:)
      file = Libc.memory_file("input") or return
      file.write(input)
      file.rewind
      null = File.open(File::NULL, "r+")
      pid = Children.start { PosixSpawn.call(argv, UNSET, { 0 => file, 1 => null, 2 => null, LEASE_FD => lease }) }
      Process.detach(pid)
    rescue SystemCallError, ThreadError
      nil # While this process exits no thread can be made, and init reaps the program.
    ensure
      [file, null].compact.each(&:close)
    end

    # Starts a program that never outlives the block, however the block is left.
    #
    # A thread can be killed at any moment (when its process exits, or by a Timeout of the application), also between the
    # start of the program and the assignment of its pid. Both are therefore shielded. The block runs with whatever
    # interrupt mask the caller has.
    #
    # Ruby runs the `ensure` of every thread at exit, but only in the process that has the thread. A forked child never gets
    # there.
    #
    # @param stdin [Boolean, Array(IO, IO)] whether the program gets input; or a pipe for it, both ends
    # @param out [IO, nil] takes what the program prints, instead of a string
    # @param stall [Numeric, nil] seconds after which a blocking write to `stdin` fails because the program reads nothing
    # @yieldparam spawn [Spawn]
    # @raise [SystemCallError] the program could not be started
    def self.open(argv, lease: nil, stdin: false, stall: nil, out: nil)
      spawn = nil
      Thread.handle_interrupt(SHIELDED) { spawn = new(argv, lease, stdin, stall, out) }
      yield spawn
    ensure
      Thread.handle_interrupt(SHIELDED) { spawn&.close }
    end

    # @api private use `open`
    def initialize(argv, lease, stdin, stall, out)
      @reaped = false
      @status = nil
      @pipes = Pipes.new(stdin, stall)
      descriptors = @pipes.child_ends.dup
      descriptors[1] = out if out
      descriptors[LEASE_FD] = lease if lease
      @handle = ProcessHandle.new(Children.start { launch(argv, descriptors) })
    rescue StandardError
      @pipes&.close
      raise
    ensure
      @pipes&.close_child_ends
    end

    # @return [IO, nil] the write end of the program's stdin
    def stdin
      @pipes.stdin
    end

    # Feeds the program, reads what it prints, and reaps it.
    #
    # @return [Outcome]
    def finish(timeout:, input: nil)
      @pipes.input = input
      deadline = Clock.now + timeout
      verdict = nil
      until @reaped
        left = deadline - Clock.now
        verdict = left <= 0 ? :timeout : (:flooded if @pipes.flooded?)
        break kill_and_reap if verdict

        @pipes.exchange(left)
        reap
      end
      @pipes.exchange(0) if verdict.nil?
      outcome(verdict, timeout)
    end

    # Kills and reaps the program, unless it has ended.
    def close
      reap
      kill_and_reap unless @reaped
      @pipes.close
      @handle.close
    end

    # May be called by another thread than the one that waits for the program.
    def kill
      @handle.kill
    end

    def pid
      @handle.pid
    end

    private

    def kill_and_reap
      kill
      limit = Clock.now + KILL_GRACE
      until @reaped || Clock.now > limit
        sleep 0.005
        reap
      end
      abandon unless @reaped
    end

    # Ruby starts a thread that reaps the program whenever it ends.
    def abandon
      @reaped = true
      Process.detach(pid)
    rescue ThreadError
      nil # No thread can be made while this process exits, and then the zombie goes with it.
    end

    def launch(argv, descriptors)
      return PosixSpawn.call(argv, UNSET, descriptors) if PosixSpawn.available?

      Process.spawn(UNSET.to_h { |name| [name, nil] }, [argv.first, argv.first], *argv.drop(1),
        descriptors.merge(close_others: true))
    end

    def reap
      return if @reaped

      _, @status = Process.wait2(pid, Process::WNOHANG)
      @reaped = !@status.nil?
      Children.delete(pid) if @reaped
    rescue Errno::ECHILD
      @reaped = true
      @status = Children.delete_reaped(pid)
    end

    def outcome(verdict, timeout)
      return Outcome.new(verdict, timeout, @pipes.out, @pipes.err) if verdict
      return Outcome.new(:unknown, nil, @pipes.out, @pipes.err) if @status.nil?
      return Outcome.new(:signaled, @status.termsig, @pipes.out, @pipes.err) if @status.signaled?

      Outcome.new(:exited, @status.exitstatus, @pipes.out, @pipes.err)
    end
  end
end
