# frozen_string_literal: true

module Diagctl
  # One run of the binary: an argv and no shell, a bounded output, a deadline, and always reaped.
  # Worker (poll thread, or the caller of Diagctl.capture) and forked dumper.
  #
  # @api private
  class Spawn
    # The lease arrives in the child under this number, so that everything above it can be closed.
    LEASE_FD = 3
    STDOUT_LIMIT = 4 * 1024 * 1024
    STDERR_LIMIT = 64 * 1024
    CHUNK = 64 * 1024
    # After SIGKILL a child can still sit in an uninterruptible system call; then a waiter thread takes it over.
    KILL_GRACE = 2.0
    # jemalloc (or whatever is preloaded) is for the host, not for a program that lives for milliseconds.
    UNSET = %w[LD_PRELOAD].freeze

    # How it ended. `kind`: :exited with a code, :signaled with a number, :timeout, :flooded, :missing,
    # :unknown (the host reaped our child before we could); of a dumper also :given_up with the reason as its code.
    Outcome = Struct.new(:kind, :code, :stdout, :stderr) do
      def success?
        kind == :exited && code.zero?
      end

      # @param who [String] what ended
      def describe(who)
        ended = case kind
          when :exited then "ended with status #{code}"
          when :signaled then "was killed by SIG#{Signal.signame(code) || code}"
          when :timeout then "did not end within #{format("%g", code)} s and was killed"
          when :flooded then "printed more than #{STDOUT_LIMIT} bytes and was killed"
          when :missing then "could not be started"
          when :given_up then "was killed, #{code}"
          else "ended, but its status was taken by other code of this process"
        end
        said = Diagctl.one_line(stderr)
        "#{who} #{ended}#{": #{said}" unless said.empty?}"
      end
    end

    @feeding = {}.compare_by_identity

    class << self
      # The write ends of programs' stdin that are open in this process.
      attr_reader :feeding
    end

    # Takes them away from a forked child (see ForkGuard): the program would wait for the end of its input for as long as
    # that child lives. Not closed, for the reason that Lease.disown gives.
    def self.disown
      return if feeding.empty?

      null = File.open(File::NULL, "w")
      feeding.each_key { |io| IO.for_fd(io.fileno, "w", autoclose: false).reopen(null) unless io.closed? }
      feeding.clear
    rescue SystemCallError
      nil
    ensure
      null&.close
    end

    # @return [Outcome] never raises for a failure of the program
    def self.run(argv, timeout:, lease: nil, input: nil)
      self.open(argv, lease: lease, stdin: !input.nil?) { |spawn| spawn.finish(timeout: timeout, input: input) }
    rescue SystemCallError => e
      Outcome.new(:missing, nil, "", e.message)
    end

    # A program never outlives the block, however that is left. A thread may be ended at any moment (by the exit of its
    # process, by a Timeout of the host's), also between the start of the program and the assignment of its pid: so
    # both are shielded, and what the host shields itself stays as it is in between.
    #
    # Ruby runs the `ensure` of every thread at exit, and only in the process that has the thread: a forked one never
    # gets there.
    #
    # @option options [Numeric] :stall seconds after which a blocking write to `stdin` fails because nothing is read
    # @yieldparam spawn [Spawn]
    # @raise [SystemCallError] the program could not be started
    def self.open(argv, **options)
      spawn = nil
      Thread.handle_interrupt(Object => :never) { spawn = new(argv, **options) }
      yield spawn
    ensure
      Thread.handle_interrupt(Object => :never) { spawn&.close }
    end

    # @return [IO, nil] the write end of the child's stdin
    attr_reader :stdin

    # @api private use `open`
    def initialize(argv, lease: nil, stdin: false, stall: nil)
      @reaped = false
      @status = nil
      ours = []
      theirs = []
      input, @stdin = if !stdin then [File.open(File::NULL), nil]
        elsif stall then stalling_socket(stall)
        else IO.pipe
        end
      theirs << input
      ours << @stdin if @stdin
      Spawn.feeding[@stdin] = true if @stdin
      @stdout, output = IO.pipe
      @stderr, errors = IO.pipe
      ours.push(@stdout, @stderr)
      theirs.push(output, errors)
      [*ours, *theirs].each(&:binmode)
      # Ruby makes its pipes non-blocking, which other programs take for an error. Not by IO#fcntl, which lets go of the GVL.
      theirs.each { |io| io.nonblock = false }
      @handle = ProcessHandle.new(launch(argv, { 0 => input, 1 => output, 2 => errors, LEASE_FD => lease }.compact))
    rescue StandardError
      Spawn.feeding.delete(@stdin)
      ours.each(&:close)
      raise
    ensure
      theirs.each(&:close)
    end

    # Feeds, drains and reaps the child.
    #
    # @return [Outcome]
    def finish(timeout:, input: nil)
      @input = input&.b
      @out = +"".b
      @err = +"".b
      @tick = 0.001
      deadline = Clock.now + timeout
      verdict = nil
      until @reaped
        left = deadline - Clock.now
        verdict = left <= 0 ? :timeout : (:flooded if @out.bytesize > STDOUT_LIMIT)
        break finish_off if verdict

        exchange([left, @tick].min)
        reap
      end
      exchange(0) if verdict.nil?
      outcome(verdict, timeout)
    end

    # Kills and reaps the child, if it has not ended.
    def close
      reap
      finish_off unless @reaped
      Spawn.feeding.delete(@stdin)
      [@stdin, @stdout, @stderr, @handle].compact.each(&:close)
    end

    # For another thread than the one that waits for it.
    def kill
      @handle.kill
    end

    def pid
      @handle.pid
    end

    private

    # A blocking write to it fails by itself when the program takes nothing for so long.
    #
    # @return [Array(IO, IO)] the program's end and ours
    def stalling_socket(seconds)
      require "socket"
      theirs, ours = UNIXSocket.pair
      timeval = [seconds.to_i, ((seconds % 1) * 1_000_000).to_i].pack("l!l!")
      ours.setsockopt(Socket::SOL_SOCKET, Socket::SO_SNDTIMEO, timeval)
      [theirs, ours]
    end

    def finish_off
      kill
      limit = Clock.now + KILL_GRACE
      until @reaped || Clock.now > limit
        sleep 0.005
        reap
      end
      abandon unless @reaped
    end

    # A thread of Ruby's own reaps it, whenever it ends.
    def abandon
      @reaped = true
      Process.detach(pid)
    rescue ThreadError
      nil # No thread can be made while this process ends; then its zombie is not ours for long.
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
    rescue Errno::ECHILD
      @reaped = true
    end

    # One round of reading and writing. Waits for a descriptor, and never longer than `wait`: a grandchild of the
    # binary may keep the pipes open after the binary itself has ended.
    def exchange(wait)
      readers = [@stdout, @stderr].reject(&:closed?)
      writers = @stdin && !@stdin.closed? ? [@stdin] : []
      @stdin.close if writers.any? && (@input.nil? || @input.empty?)
      writers = [] if @stdin&.closed?
      readable, writable = IO.select(readers, writers, nil, wait)
      @tick = readable ? 0.001 : [@tick * 2, 0.05].min
      readable&.each { |io| read(io) }
      write if writable&.any?
    end

    def read(io)
      loop do
        chunk = io.read_nonblock(CHUNK, exception: false)
        return if chunk == :wait_readable
        return io.close if chunk.nil?

        if io.equal?(@stdout) then @out << chunk
        elsif @err.bytesize < STDERR_LIMIT then @err << chunk.byteslice(0, STDERR_LIMIT - @err.bytesize)
        end
        return if @out.bytesize > STDOUT_LIMIT
      end
    end

    def write
      written = @stdin.write_nonblock(@input.byteslice(0, CHUNK), exception: false)
      @input = @input.byteslice(written..) if written.is_a?(Integer)
    rescue Errno::EPIPE
      @stdin.close # It read enough, or died; its status tells which.
    end

    def outcome(verdict, timeout)
      return Outcome.new(verdict, timeout, @out, @err) if verdict
      return Outcome.new(:unknown, nil, @out, @err) if @status.nil?
      return Outcome.new(:signaled, @status.termsig, @out, @err) if @status.signaled?

      Outcome.new(:exited, @status.exitstatus, @out, @err)
    end
  end
end
