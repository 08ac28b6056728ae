# frozen_string_literal: true

module Diagctl
  module Puma
    # Tells of kills in this cgroup because of its memory limit (v2: the groups below included), and within which time they were
    # counted: the counter does not say who was killed, so the times must fit. Main thread of the master.
    #
    # @api private
    class OomKills
      ROOT = "/sys/fs/cgroup"
      # Seconds from a kill, which is counted at once, to the end of a large process.
      ENDING = 2

      Reading = Struct.new(:time, :count)

      # @param files [Array<String>] the first that can be read is used
      def initialize(files = OomKills.files)
        @file = files.find { |path| count(path) }
        @claimed = 0
        @before = @last = Reading.new(Clock.now, count(@file))
      end

      # Reads the counter, each time that the master looks after its workers.
      def look(now = Clock.now)
        return if now - @last.time < ENDING

        @before = @last
        @last = Reading.new(now, count(@file))
      end

      # A worker was killed. Each kill that was counted explains one worker.
      #
      # @return [Integer, nil] the time within which a kill was counted, in milliseconds
      def claim(now = Clock.now)
        current = count(@file)
        explained = [@before.count.to_i, @claimed].max
        return unless current && @before.count && current > explained

        @claimed = explained + 1
        ((now - @before.time) * 1000).ceil
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
