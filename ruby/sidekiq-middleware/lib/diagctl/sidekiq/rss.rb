# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # The resident memory of the process that made this object: one pread(2) on a file that stays open, because this runs
    # with every job. The kernel resolves `self` when the file is opened, so a forked child needs one of its own.
    # Any thread of the process.
    #
    # @api private
    class Rss
      # The first two of seven numbers, in a string that Ruby needs no second allocation for.
      BYTES = 23
      # Seconds for which a reading will do for a job that begins: of jobs that follow each other at once, the end of one
      # is the beginning of the next, so that each costs one read.
      FRESH = 0.005

      # What was read, and what it means. Replaced as one, because threads read at the same time.
      Reading = Struct.new(:line, :bytes)

      # @raise [SystemCallError, LoadError] no /proc, or it is closed to us; no etc
      def initialize
        # Not with this file, which a parent that forks others may load (see Runtime).
        require "etc"
        @page = Etc.sysconf(Etc::SC_PAGESIZE)
        @file = File.open("/proc/self/statm")
        @read_at = -FRESH
        @reading = Reading.new("", 0)
      end

      # @param now [Float] monotonic second
      # @return [Integer] bytes
      # @raise [SystemCallError]
      def bytes(now = Clock.now)
        line = @file.pread(BYTES, 0)
        @read_at = now
        last = @reading
        # Most jobs change nothing, and comparing is a fraction of parsing.
        return last.bytes if line == last.line

        @reading = Reading.new(line, line.byteslice(line.index(" "), BYTES).to_i * @page)
        @reading.bytes
      end

      # @return [Integer] bytes, perhaps those of a moment ago
      def recent(now)
        now - @read_at < FRESH ? @reading.bytes : bytes(now)
      end
    end
  end
end
