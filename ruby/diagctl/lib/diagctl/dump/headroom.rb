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
        @limit = Headroom.field(fields, "limit", Integer)
        @droppable = /^#{Regexp.escape(Headroom.field(fields, "droppable", String))} (\d+)/
        @used = Headroom.open(fields, "used")
        @stat = Headroom.open(fields, "stat")
      rescue StandardError
        close
        raise
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
        @meminfo = Headroom.open(fields, "meminfo")
      end

      def free(_enough)
        @meminfo.pread(FILE_BYTES, 0)[AVAILABLE, 1].to_i * 1024
      end

      def close
        @meminfo.close
      end
    end

    # A number in the place of a path would be a descriptor of the application's.
    #
    # @raise [KeyError, TypeError]
    def self.field(fields, key, type)
      value = fields.fetch(key)
      raise TypeError, "#{key} is a #{value.class}" unless value.is_a?(type)

      value
    end

    # Non-blocking, because what is no file might be waited for.
    def self.open(fields, key)
      File.open(field(fields, key, String), File::RDONLY | File::NONBLOCK)
    end

    # @param watches [Array<Hash>] as `acquire` gives them. One that cannot be read here is left out: the kernel's OOM killer
    #   takes the dumper first in any case.
    def initialize(watches)
      @limits = watches.filter_map do |fields|
        kind = fields.key?("meminfo") ? Host : Cgroup
        [fields.fetch("of"), Headroom.field(fields, "reserve", Integer), kind.new(fields)]
      rescue SystemCallError, KeyError, TypeError, ArgumentError
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
