# frozen_string_literal: true

module E2E
  # A cgroup with a limit, on v1 or v2.
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

      # v2: file => value. v1: controller => (file => value), with a group of the same name in each. Returns nil if this machine
      # does not allow it.
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

      # Creates the group beneath our own cgroup, because we may not be allowed to create one above it.
      def create(unified, controller, name)
        mount = unified ? ROOT : File.join(ROOT, controller)
        own = File.read("/proc/self/cgroup")[unified ? /^0::(.*)$/ : /^\d+:#{controller}:(.*)$/, 1]
        base = [File.join(mount, own.to_s), mount].find { |path| File.directory?(path) }
        File.join(base, name).tap { |dir| Dir.mkdir(dir) }
      end
    end

    # The first directory is the one that #[] reads.
    def initialize(dirs)
      @dirs = dirs
    end

    def [](file) = File.read(File.join(@dirs.first, file))

    # A command that joins the group and then executes its arguments.
    def enter = ["/bin/sh", "-c", "#{joining} && exec \"$@\"", "sh"]

    # A command of a shell that joins the group.
    def joining = @dirs.map { |dir| "echo $$ > #{dir}/cgroup.procs" }.join(" && ")

    # The kernel may still be busy with a process after it has been reaped.
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
