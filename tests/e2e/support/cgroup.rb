# frozen_string_literal: true

module E2E
  # A cgroup with a limit, of whichever version this machine has.
  class Cgroup
    ROOT = "/sys/fs/cgroup"

    class << self
      attr_reader :why

      def with_memory(bytes) = make({ "memory.max" => bytes }, { "memory" => { "memory.limit_in_bytes" => bytes } })

      # percent: of one CPU.
      def with_cpu(percent)
        quota = percent * 1000
        make({ "cpu.max" => "#{quota} 100000" }, { "cpu" => { "cpu.cfs_quota_us" => quota }, "cpuacct" => {} })
      end

      private

      # v2: file => value. v1: controller => (file => value), a group of the same name in each. nil where this machine does not let us.
      def make(v2, v1)
        unified = File.exist?("#{ROOT}/cgroup.controllers")
        groups = unified ? { "" => v2 } : v1
        name = "diagctl-e2e-#{Process.pid}-#{rand(1 << 32)}"
        made = []
        groups.each do |controller, settings|
          made << create(unified, controller, name)
          settings.each { |file, value| File.write(File.join(made.last, file), value.to_s) }
        end
        new(made)
      rescue SystemCallError => e
        @why = e.message
        made.each { |dir| Dir.rmdir(dir) }
        nil
      end

      # Beneath our own cgroup: above it we may not be allowed to.
      def create(unified, controller, name)
        mount = unified ? ROOT : File.join(ROOT, controller)
        own = File.read("/proc/self/cgroup")[unified ? /^0::(.*)$/ : /^\d+:#{controller}:(.*)$/, 1]
        base = [File.join(mount, own.to_s), mount].find { |path| File.directory?(path) }
        File.join(base, name).tap { |dir| Dir.mkdir(dir) }
      end
    end

    # The first is the one whose figures can be asked for.
    def initialize(dirs)
      @dirs = dirs
    end

    def [](file) = File.read(File.join(@dirs.first, file))

    # A command that joins and then becomes what follows it.
    def enter = ["/bin/sh", "-c", "#{@dirs.map { |dir| "echo $$ > #{dir}/cgroup.procs" }.join(" && ")} && exec \"$@\"", "sh"]

    # The kernel is not done with a process at the moment when it can be reaped.
    def remove
      @dirs.each do |dir|
        E2E.wait_until("#{dir} is empty") do
          Dir.rmdir(dir)
          true
        rescue Errno::EBUSY
          false
        end
      end
    end
  end
end
