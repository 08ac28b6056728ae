# frozen_string_literal: true

module Diagctl
  # How much memory is left while a dumper runs, by the files and thresholds that the grant names. What the worker writes in
  # that time is copied, and both count against one limit: before it is full the dump is given up, not the worker.
  # Poll thread. The files stay open, so that a look is one pread(2) a limit.
  #
  # @api private
  class Headroom
    NUMBER_BYTES = 32
    FILE_BYTES = 8192

    # One limit: free is `limit − (used − droppable)`.
    class Cgroup
      def initialize(fields)
        @limit = fields.fetch("limit")
        @used = File.open(fields.fetch("used"))
        @stat = File.open(fields.fetch("stat"))
        @droppable = /^#{Regexp.escape(fields.fetch("droppable"))} (\d+)/
      end

      # Page cache counts as used until it is dropped, so the second file matters only when the first says it is tight.
      def free(enough)
        left = @limit - @used.pread(NUMBER_BYTES, 0).to_i
        left < enough ? left + @stat.pread(FILE_BYTES, 0)[@droppable, 1].to_i : left
      end

      def close
        [@used, @stat].each { |file| file&.close }
      end
    end

    # The machine itself: free is what the kernel says can be had without swapping.
    class Host
      AVAILABLE = /^MemAvailable:\s+(\d+) kB/

      def initialize(fields)
        @meminfo = File.open(fields.fetch("meminfo"))
      end

      def free(_enough)
        @meminfo.pread(FILE_BYTES, 0)[AVAILABLE, 1].to_i * 1024
      end

      def close
        @meminfo.close
      end
    end

    # @param watches [Array<Hash>] as `acquire` gives them. One that cannot be read here is left out: the kernel's OOM killer
    #   takes the dumper first in any case.
    def initialize(watches)
      @limits = watches.filter_map do |fields|
        kind = fields.key?("meminfo") ? Host : Cgroup
        [fields.fetch("of"), fields.fetch("reserve"), kind.new(fields)]
      rescue SystemCallError, KeyError
        nil
      end
    end

    # @return [String, nil] why the dump has to be given up
    def shortage
      @limits.each do |of, reserve, limit|
        free = limit.free(reserve)
        return "memory ran short: #{mib(free)} of #{of} are free, a dump is given up below #{mib(reserve)}" if free < reserve
      rescue SystemCallError, EOFError
        next # The cgroup is gone.
      end
      nil
    end

    def close
      @limits.each { |_, _, limit| limit.close }
    end

    private

    def mib(bytes)
      "#{(bytes / 1_048_576.0).round(1)} MiB"
    end
  end
end
