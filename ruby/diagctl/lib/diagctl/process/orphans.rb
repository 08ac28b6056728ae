# frozen_string_literal: true

module Diagctl
  # Reaps what follows a capture (a hook, a shipment) where this process is the first of its container, and so the parent of
  # every orphan there. An application that is started so seldom reaps anything. Elsewhere init does.
  # Worker: poll thread, after a capture. Reaps those of earlier ones.
  #
  # @api private
  module Orphans
    # The name that `diagctl after-capture` gives itself; no program that this process waits for has it.
    ENDED = /\A\d+ \(diagctl-after\) Z /
    FIRST = 1

    def self.reap(pid = Process.pid)
      return unless pid == FIRST

      Dir.each_child("/proc") do |name|
        next unless name.match?(/\A\d+\z/) && File.read("/proc/#{name}/stat").match?(ENDED)

        Process.wait(name.to_i, Process::WNOHANG)
      rescue SystemCallError
        next # It has ended, or is the child of another process.
      end
    end
  end
end
