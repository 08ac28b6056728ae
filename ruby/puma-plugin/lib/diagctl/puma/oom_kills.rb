# frozen_string_literal: true

module Diagctl
  module Puma
    # The number of processes that the kernel has killed because the memory limit of this cgroup was reached (v2: the groups below
    # included). Main thread of the master.
    #
    # @api private
    class OomKills
      ROOT = "/sys/fs/cgroup"

      # @param files [Array<String>] the first that can be read is used
      def initialize(files = OomKills.files)
        @file = files.find { |path| count(path) }
        @last = count(@file)
      end

      # @return [Boolean] whether the number has risen since the last call
      def rose?
        now = count(@file) or return false
        before = @last
        @last = now
        now > before
      end

      # In a container the group is the root of what can be seen.
      def self.files(root: ROOT, groups: File.read("/proc/self/cgroup"))
        unified = groups[/^0::(.*)$/, 1].to_s
        own = groups[/^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/, 1].to_s
        [File.join(root, unified, "memory.events"), File.join(root, "memory.events"),
         File.join(root, "memory", own, "memory.oom_control"), File.join(root, "memory", "memory.oom_control")]
      rescue SystemCallError
        []
      end

      private

      def count(path)
        File.read(path)[/^oom_kill (\d+)/, 1]&.to_i if path
      rescue SystemCallError
        nil
      end
    end
  end
end
