# frozen_string_literal: true

module Diagctl
  # One walk of the heap, seen from the dumper: the process for it (WalkerProcess), which waits until it is told to walk, and then is
  # watched.
  #
  # Forked dumper only.
  #
  # @api private
  class Walk
    # Seconds for which a walk may stand still. It moves on with every page of the heap, and while it waits for its reader the
    # deadline of the dumper applies.
    LONGEST_STALL = 10.0
    SHORTEST_LOOK = 0.001
    LONGEST_LOOK = 0.05
    # The page, its parts and the states in crates/heapwalk/src/status.rs.
    STATUS_BYTES = 4096
    REASON = 40
    LAYOUT = REASON + 1024
    WRITING = 3
    DONE = 4
    GAVE_UP = 5

    # The text of /proc/self/stat after the name: the minor page faults of children that were reaped.
    CHILDREN_FAULTS = /\A.*\) (?:\S+ ){8}(\d+)/m

    # @return [Integer] memory that the process had to itself at its end, bytes: nearly all are pages that Ruby's mark functions
    #   write to
    attr_reader :copied
    # @return [IO] where the report goes
    attr_reader :output
    # @return [IO] the dumper's end of the orders
    attr_reader :orders

    # Forks. The objects that the dumper makes from now on are not in the heap that is walked.
    #
    # @param object [File] a file in memory that holds the walker by the time it is to walk
    # @param status [File] the page that is watched. All walks of a dumper use the same
    # @param threads [Hash{Thread=>String}] threads of the worker with their stacks (see ThreadStacks)
    # @param close [Array<IO>] descriptors that the process must not hold
    # @raise [SystemCallError]
    def initialize(object, status, output, threads, close)
      @output = output
      @status = status
      @copied = 0
      orders, @orders = IO.pipe
      process = WalkerProcess.new(object, @status, threads)
      @pid = ForkGuard.raw_fork
      process.run(orders, output, close.push(@orders)) if @pid.zero?
    ensure
      orders&.close
      @orders&.close if @pid.nil?
    end

    # Walks, and waits for the end.
    #
    # @param mode [Integer] see Walker
    # @param layout [Integer] what an earlier walk found (see `layout`)
    # @return [Process::Status, nil] nil for a walk that stood still
    def run(mode, layout)
      @status.truncate(0)
      @status.truncate(STATUS_BYTES)
      faults = children_faults
      begin
        @orders.syswrite([mode, layout].pack("C2"))
      rescue Errno::EPIPE
        nil # It has ended. Its status says why.
      end
      watch.tap { @copied = (children_faults - faults) * Etc.sysconf(Etc::SC_PAGESIZE) }
    end

    # @return [Array(Integer, Integer, String)] the state that was reached, the bytes that were written, and the reason for an end
    def reached
      state, _, written, _, length = @status.pread(REASON, 0).unpack("Q5")
      [state, written, length.zero? ? "" : @status.pread(length.clamp(0, LAYOUT - REASON), REASON).scrub]
    end

    # @return [Integer] a number for the way in which this Ruby lays out objects, or 0: not every walker tells it
    def layout
      @status.pread(8, LAYOUT).unpack1("Q")
    end

    # Ends the process, if it has not ended.
    def close
      stop if @pid
      @orders.close
    end

    private

    def children_faults = File.read("/proc/self/stat")[CHILDREN_FAULTS, 1].to_i

    def watch
      look = SHORTEST_LOOK
      stalled = 0.0
      last = nil
      until ended?
        state, progress = @status.pread(16, 0).unpack("Q2")
        stalled = 0.0 if progress != last || state == WRITING
        last = progress
        return stop if stalled > LONGEST_STALL

        sleep look
        # Not by the clock: a machine that slept is no walk that stood still.
        stalled += look
        look = [look * 2, LONGEST_LOOK].min
      end
      @ended
    end

    # Never by a wait that blocks: Ruby 3.1 learns of the end of a child from SIGCHLD, which is blocked here.
    def ended?
      _, @ended = Process.wait2(@pid, Process::WNOHANG)
      @pid = nil if @ended
      !@ended.nil?
    end

    # @return [nil]
    def stop
      Process.kill("KILL", @pid)
      sleep SHORTEST_LOOK until ended?
    end
  end
end
