# frozen_string_literal: true

module Diagctl
  # Walks the heap with the native walker (crates/heapwalk), in a process that the dumper forks for it. So a walker that crashes or
  # hangs ends that process only, and the dumper goes on with Ruby's own means.
  #
  # Forked dumper only. One object per capture.
  #
  # @api private
  class Walker
    # The walker wrote a part of the report and then failed, so what it wrote cannot be continued.
    Spoiled = Class.new(StandardError)

    # The request for a walk, as in crates/heapwalk/src/request.rs.
    GRAPH = 0
    COUNTS = 1
    PROOF = 2
    OBJECTS = 3
    PROVEN = 4
    # Seconds for which a walk may stand still. It moves on with every page of the heap, and while it waits for its reader the
    # deadline of the dumper applies.
    LONGEST_STALL = 10.0
    SHORTEST_LOOK = 0.001
    LONGEST_LOOK = 0.05
    STATUS_BYTES = 4096
    # The states in crates/heapwalk/src/status.rs.
    WRITING = 3
    DONE = 4
    GAVE_UP = 5
    TIMEOUT = 30.0
    # The kernel sends this signal when memory ends, and people do. It says nothing about the walker.
    INNOCENT = "KILL"

    # @return [String, nil] why the walker was not used, or not to the end
    attr_reader :reason

    # @param threads [Array<Thread>] threads of the worker
    def initialize(client, lease, capture, threads)
      @threads = threads
      @client = client
      @lease = lease
      @capture = capture
    end

    # @param io [IO] where the report goes
    # @param mode [Integer] GRAPH, COUNTS or OBJECTS
    # @return [Boolean] false if nothing was written
    # @raise [Spoiled]
    def walk(io, mode)
      return false if @reason || !obtain

      # In a process of its own: the sample of objects that the proof needs is not in the heap that is walked.
      @proven ||= attempt(io, PROOF)
      @proven && attempt(io, mode | PROVEN)
    rescue SystemCallError => e
      give_up("#{e.class}: #{e.message}")
    end

    private

    def attempt(io, mode)
      status = Libc.memory_file("diagctl")
      status.truncate(STATUS_BYTES)
      process = WalkerProcess.new(@object, status, @threads)
      pid = ForkGuard.raw_fork
      process.run(io, mode, close: [@lease.io]) if pid.zero?
      judge(watch(pid, status), status)
    ensure
      status&.close
    end

    # @return [Boolean, File] whether there is a walker to load
    def obtain
      return @object if @object
      return give_up("Fiddle is not available") unless Libc.load && (file = Libc.memory_file("diagctl-heapwalk"))

      outcome = @client.walker(@lease, @capture, ruby: WalkerProcess.ruby, into: file, timeout: TIMEOUT)
      if outcome.success? && file.size.positive? then @object = file
      else
        file.close
        said = Diagctl.one_line(outcome.stderr)
        give_up(outcome.kind == :exited && !said.empty? ? said : outcome.describe("`diagctl walker`"))
      end
    end

    # @return [Process::Status, nil] nil for a walk that stood still
    def watch(pid, status)
      look = SHORTEST_LOOK
      stalled = 0.0
      last = nil
      loop do
        _, ended = Process.wait2(pid, Process::WNOHANG)
        return ended if ended

        state, progress = status.pread(16, 0).unpack("Q2")
        stalled = 0.0 if progress != last || state == WRITING
        last = progress
        return stop(pid) if stalled > LONGEST_STALL

        sleep look
        # Not by the clock: a machine that slept is no walk that stood still.
        stalled += look
        look = [look * 2, LONGEST_LOOK].min
      end
    end

    # Never by a wait that blocks: Ruby 3.1 learns of the end of a child from SIGCHLD, which is blocked here.
    def stop(pid)
      Process.kill("KILL", pid)
      sleep SHORTEST_LOOK until Process.wait(pid, Process::WNOHANG)
    end

    def judge(ended, status)
      state, _, written, _, length = status.pread(40, 0).unpack("Q5")
      return true if ended&.success? && state == DONE

      if state == GAVE_UP then give_up(status.pread(length.clamp(0, STATUS_BYTES - 40), 40).scrub)
      else crashed(ended)
      end
      raise Spoiled, @reason if written.positive?

      false
    end

    def crashed(ended)
      signal = Signal.signame(ended.termsig) if ended&.signaled?
      how = ended ? "ended with status #{ended.exitstatus}" : "stood still for #{format("%g", LONGEST_STALL)} s"
      how = "was ended by SIG#{signal}" if signal
      give_up("the heap walker #{how}")
      @client.walker_failed(@lease, @capture, ruby: WalkerProcess.ruby, reason: @reason) unless signal == INNOCENT
    end

    # @return [false]
    def give_up(reason)
      @reason = reason.empty? ? "unknown" : reason
      false
    end
  end
end
