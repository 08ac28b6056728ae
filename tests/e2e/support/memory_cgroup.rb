# frozen_string_literal: true

module E2E
  # A memory cgroup with a limit, of whichever version this machine has.
  class MemoryCgroup
    V1 = "/sys/fs/cgroup/memory"
    V2 = "/sys/fs/cgroup"

    class << self
      attr_reader :why

      def make(limit)
        v2 = File.exist?("#{V2}/cgroup.controllers")
        # Beneath our own cgroup: above it we may not be allowed to.
        own = v2 ? File.read("/proc/self/cgroup")[/^0::(.*)$/, 1] : File.read("/proc/self/cgroup")[/^\d+:memory:(.*)$/, 1]
        base = [File.join(v2 ? V2 : V1, own.to_s), v2 ? V2 : V1].find { |path| File.directory?(path) }
        dir = File.join(base, "diagctl-e2e-#{Process.pid}-#{rand(1 << 32)}")
        Dir.mkdir(dir)
        File.write(File.join(dir, v2 ? "memory.max" : "memory.limit_in_bytes"), limit.to_s)
        new(dir)
      rescue SystemCallError => e
        @why = e.message
        Dir.rmdir(dir) if dir && File.directory?(dir)
        nil
      end
    end

    def initialize(dir)
      @dir = dir
    end

    # A command that joins and then becomes what follows it.
    def enter = ["/bin/sh", "-c", "echo $$ > #{@dir}/cgroup.procs && exec \"$@\"", "sh"]

    # The kernel is not done with a process at the moment when it can be reaped.
    def remove
      E2E.wait_until("#{@dir} is empty") do
        Dir.rmdir(@dir)
        true
      rescue Errno::EBUSY
        false
      end
    end
  end
end
