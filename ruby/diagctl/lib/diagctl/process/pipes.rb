# frozen_string_literal: true

module Diagctl
  # Standard input, output and error of one program that diagctl runs: feeds the program, and keeps a bounded part of what it
  # prints. Worker (poll thread, or the caller of Diagctl.capture) and forked dumper.
  #
  # @api private
  class Pipes
    STDOUT_LIMIT = 4 * 1024 * 1024
    STDERR_LIMIT = 64 * 1024
    CHUNK = 64 * 1024
    # Seconds between two looks at a program that neither reads nor prints. They double from the shortest to the longest.
    SHORTEST_LOOK = 0.001
    LONGEST_LOOK = 0.05

    @open_stdins = {}.compare_by_identity

    class << self
      # The write ends of programs' stdin that are open in this process.
      attr_reader :open_stdins
    end

    # Takes the open write ends away from a forked child (see ForkGuard). Otherwise the program would wait for the end of its
    # input for as long as that child lives. They are redirected, not closed, for the reason given at Lease.disown.
    def self.disown
      return if open_stdins.empty?

      null = File.open(File::NULL, "w")
      open_stdins.each_key { |io| IO.for_fd(io.fileno, "w", autoclose: false).reopen(null) unless io.closed? }
      open_stdins.clear
    rescue SystemCallError
      nil
    ensure
      null&.close
    end

    # @return [IO, nil] the write end of the program's stdin
    attr_reader :stdin
    # @return [String] what was read so far
    attr_reader :out, :err
    # @return [Hash{Integer=>IO}] the program's ends by descriptor number, ascending
    attr_reader :child_ends

    # @param stdin [Boolean, Array(IO, IO)] whether the program gets input; otherwise it reads /dev/null. Or a pipe for it, both ends
    # @param stall [Numeric, nil] seconds after which a blocking write to `stdin` fails because the program reads nothing
    def initialize(stdin, stall)
      @child_ends = {}
      @out = +"".b
      @err = +"".b
      @look = SHORTEST_LOOK
      @child_ends[0], @stdin = case stdin
        when Array then stdin
        when true then input_pair(stall)
        else [File.open(File::NULL), nil]
        end
      Pipes.open_stdins[@stdin] = true if @stdin
      @stdout, @child_ends[1] = IO.pipe
      @stderr, @child_ends[2] = IO.pipe
      @readers = [@stdout, @stderr]
      @stdin&.binmode
      @readers.each(&:binmode)
      @child_ends.each_value(&:binmode)
      # Ruby makes its pipes non-blocking, which other programs take for an error. IO#fcntl would release the GVL.
      @child_ends.each_value { |io| io.nonblock = false }
    rescue StandardError
      close_child_ends
      close
      raise
    end

    def close_child_ends
      @child_ends.each_value { |io| io&.close }
    end

    def close
      Pipes.open_stdins.delete(@stdin)
      [@stdin, @stdout, @stderr].each { |io| io&.close }
    end

    # @param input [String, nil] everything that the program is to read
    def input=(input)
      @input = input&.b
    end

    # Reads and writes once. Waits for a descriptor for a moment only: a grandchild may keep the pipes open after the
    # program itself has ended.
    #
    # @param limit [Float] seconds to wait at most
    def exchange(limit)
      # Arrays are made only where there is something to read or write: this runs again and again, also in the dumper, whose
      # objects are in its dump.
      @readers.reject!(&:closed?)
      @stdin.close if writable? && (@input.nil? || @input.empty?)
      readable, writers = IO.select(@readers, writable? ? [@stdin] : nil, nil, [limit, @look].min)
      @look = readable ? SHORTEST_LOOK : [@look * 2, LONGEST_LOOK].min
      readable&.each { |io| read(io) }
      write if writers&.any?
    end

    # @return [Boolean] whether the program printed more than diagctl accepts
    def flooded?
      @out.bytesize > STDOUT_LIMIT
    end

    private

    def writable?
      !@stdin.nil? && !@stdin.closed?
    end

    # @return [Array(IO, IO)] the program's end and ours
    def input_pair(stall)
      return IO.pipe if stall.nil?

      require "socket"
      theirs, ours = UNIXSocket.pair
      timeval = [stall.to_i, ((stall % 1) * 1_000_000).to_i].pack("l!l!")
      ours.setsockopt(Socket::SOL_SOCKET, Socket::SO_SNDTIMEO, timeval)
      [theirs, ours]
    end

    def read(io)
      loop do
        chunk = io.read_nonblock(CHUNK, exception: false)
        return if chunk == :wait_readable
        return io.close if chunk.nil?

        if io.equal?(@stdout) then @out << chunk
        elsif @err.bytesize < STDERR_LIMIT then @err << chunk.byteslice(0, STDERR_LIMIT - @err.bytesize)
        end
        return if flooded?
      end
    end

    def write
      written = @stdin.write_nonblock(@input.byteslice(0, CHUNK), exception: false)
      @input = @input.byteslice(written..) if written.is_a?(Integer)
    rescue Errno::EPIPE
      @stdin.close # The program read enough, or died. Its status tells which.
    end
  end
end
