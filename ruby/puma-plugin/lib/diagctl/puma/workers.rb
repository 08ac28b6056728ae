# frozen_string_literal: true

module Diagctl
  module Puma
    # Notes in the store how each worker ended, as its parent alone learns it: exit status or signal, and whether the kernel's
    # out-of-memory killer has struck in this cgroup. Needs DIAGCTL_DIR, because the master starts no program to ask for it.
    #
    # Main thread of the master. Loads nothing, reaps nothing, and raises nothing.
    #
    # @api private
    class Workers
      # Field 52 of /proc/PID/stat, counted from the end of the name: the status of a child that has ended but is not reaped.
      STATUS = /\A.*\) Z (?:\S+ ){48}(\d+)/m

      def initialize(dir, oom_kills: OomKills.new)
        @dir = dir
        @oom_kills = oom_kills
        @master = Process.pid
      end

      # Puma 7 has a hook. Before, the status of a worker that has ended is read just before Puma reaps it.
      def watch(launcher)
        hook = hook?(launcher)
        around_reaping(launcher.instance_variable_get(:@runner), before: !hook)
        return unless hook

        workers = self
        launcher.config.configure do |_user, file, _default|
          file.after_worker_shutdown { |handle| workers.ended(handle.pid, handle.process_status.to_i) }
        end
      end

      # @param status [Integer] as wait(2) returns it
      def ended(pid, status, start_ticks: nil)
        return unless Process.pid == @master

        facts = (status & 0x7f).zero? ? { exit: status >> 8 } : { signal: status & 0x7f }
        window = @oom_kills.claim if facts[:signal] == Signal.list["KILL"]
        facts.update(oom_kill: true, oom_window_ms: window) if window
        Ending.note(@dir, by: "parent", pid: pid, start_ticks: start_ticks, **facts)
      rescue StandardError
        nil
      end

      # After Puma has looked after its workers, every few seconds.
      def looked
        @oom_kills.look
      rescue StandardError
        nil
      end

      # Notes the workers that have ended and are not reaped.
      def look(handles)
        handles.each do |handle|
          stat = File.binread("/proc/#{handle.pid}/stat") if handle.pid
          status = stat && stat[STATUS, 1]
          ended(handle.pid, status.to_i, start_ticks: stat[Holder::START, 1]) if status
        rescue SystemCallError
          next
        end
      end

      private

      def hook?(launcher)
        found = false
        launcher.config.configure { |_user, file, _default| found = file.respond_to?(:after_worker_shutdown) }
        found
      end

      # A method of this one object. Where Puma has no such method, nothing is noted, and no time within which a kill was counted.
      def around_reaping(runner, before:)
        return unless runner.respond_to?(:wait_workers, true) && runner.instance_variable_defined?(:@workers)

        workers = self
        runner.define_singleton_method(:wait_workers) do
          workers.look(@workers) if before
          super().tap { workers.looked }
        end
        runner.singleton_class.send(:private, :wait_workers)
      end
    end
  end
end
