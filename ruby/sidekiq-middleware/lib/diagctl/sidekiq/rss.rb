# frozen_string_literal: true

require "etc"

module Diagctl
  module Sidekiq
    # The resident memory of the process that made this object: one pread(2) on a file that stays open, because this runs
    # twice a job. The kernel resolves `self` when the file is opened, so a forked child needs one of its own.
    # Any thread of the process.
    #
    # @api private
    class Rss
      PAGE = Etc.sysconf(Etc::SC_PAGESIZE)
      # The first two of seven numbers, in a string that Ruby needs no second allocation for.
      BYTES = 23

      # @raise [SystemCallError] no /proc, or it is closed to us
      def initialize
        @file = File.open("/proc/self/statm")
      end

      # @return [Integer] bytes
      # @raise [SystemCallError]
      def bytes
        line = @file.pread(BYTES, 0)
        line.byteslice(line.index(" "), BYTES).to_i * PAGE
      end
    end
  end
end
