# frozen_string_literal: true

module Diagctl
  # The memory that is left while a dumper runs, measured with the files and thresholds that the grant names. Pages that the worker
  # writes in that time are copied, and both copies count against the same limit. Before the limit is reached the dump is
  # abandoned, and the worker survives.
  #
  # Poll thread. The files stay open, so a check costs one pread(2) per limit.
  #
  # @api private
  class Headroom
    NUMBER_BYTES = 32
    FILE_BYTES = 8192

    # The limit of a cgroup. Free memory is `limit − (used − droppable)`.
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

      # Page cache counts as used until it is dropped, so the second file is read only when the first shows a shortage.
      def free(enough)
        left = @limit - @used.pread(NUMBER_BYTES, 0).to_i
        left < enough ? left + @stat.pread(FILE_BYTES, 0)[@droppable, 1].to_i : left
      end

      def close
        [@used, @stat].each { |file| file&.close }
      end
    end

    # The memory of the machine. Free memory is the kernel's estimate of what is available without swapping.
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

    # Checks the type, because File.open would take a number as a descriptor of the application.
    #
    # @raise [KeyError, TypeError]
    def self.field(fields, key, type)
      value = fields.fetch(key)
      raise TypeError, "#{key} is a #{value.class}" unless value.is_a?(type)

      value
    end

    # Non-blocking, in case the path is not a regular file.
    def self.open(fields, key)
      File.open(field(fields, key, String), File::RDONLY | File::NONBLOCK)
    end

    # @param watches [Array<Hash>] from `diagctl acquire`. A limit that cannot be read is left out: the kernel's OOM killer
    #   takes the dumper first in any case
    def initialize(watches)
      @limits = watches.filter_map do |fields|
        kind = fields.key?("meminfo") ? Host : Cgroup
        [fields.fetch("of"), Headroom.field(fields, "reserve", Integer), kind.new(fields)]
      rescue SystemCallError, KeyError, TypeError, ArgumentError
        nil
      end
    end

    # @return [String, nil] why the dump has to be abandoned
    def shortage
      @limits.each do |of, reserve, limit|
        free = limit.free(reserve)
        return "memory ran short: #{of} has #{mib(free)} free, and a dump needs #{mib(reserve)}" if free < reserve
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
