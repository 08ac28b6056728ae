# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # Resident memory of the process that created this object: one pread(2) of a file that stays open, because it is read with every
    # job. The kernel resolves `self` when the file is opened, so a forked child needs its own object.
    # Any thread of the process.
    #
    # @api private
    class Rss
      # Enough for the first two of seven numbers, and short enough for Ruby to embed the string in its object.
      BYTES = 23
      # Seconds for which a reading is reused when a job begins. When jobs follow each other immediately, the end of one is the
      # beginning of the next, and each job costs one read.
      FRESH = 0.005

      # The text that was read, and its value. Replaced as one object, because several threads read at the same time.
      Reading = Struct.new(:line, :bytes)

      # @raise [SystemCallError, LoadError] /proc is missing or not readable; etc cannot be loaded
      def initialize
        # Not at the top of this file, which a parent that forks others may load (see Runtime).
        require "etc"
        @page = Etc.sysconf(Etc::SC_PAGESIZE)
        @file = File.open("/proc/self/statm")
        @read_at = -FRESH
        @reading = Reading.new("", 0)
      end

      # @param now [Float] monotonic time in seconds
      # @return [Integer] bytes
      # @raise [SystemCallError]
      def bytes(now = Clock.now)
        line = @file.pread(BYTES, 0)
        @read_at = now
        last = @reading
        # Most jobs change nothing, and comparing takes a fraction of the time of parsing.
        return last.bytes if line == last.line

        @reading = Reading.new(line, line.byteslice(line.index(" "), BYTES).to_i * @page)
        @reading.bytes
      end

      # @return [Integer] bytes, at most FRESH seconds old
      def recent(now)
        now - @read_at < FRESH ? @reading.bytes : bytes(now)
      end
    end
  end
end
