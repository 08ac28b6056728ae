# frozen_string_literal: true

require "etc"

module Diagctl
  module Sidekiq
    # The resident memory of this process: one pread(2) on a file that stays open.
    # Any thread of the process.
    #
    # @api private
    class Rss
      PAGE = Etc.sysconf(Etc::SC_PAGESIZE)
      # Seven numbers.
      BYTES = 160

      # @return [Integer] bytes
      # @raise [SystemCallError] no /proc, or it is closed to us
      def bytes
        line = file.pread(BYTES, 0)
        line.byteslice(line.index(" "), BYTES).to_i * PAGE
      end

      private

      # The kernel resolves `self` when the file is opened: a forked child would go on reading about its parent.
      def file
        return @file if @pid == Process.pid

        @pid = Process.pid
        @file = File.open("/proc/self/statm")
      end
    end
  end
end
