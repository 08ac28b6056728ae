# frozen_string_literal: true

module Diagctl
  # A block of the application's, run with a deadline: a feature flag that hangs must not end the polling, and a
  # report that hangs must not keep the lease. It runs in a thread of its own, in the worker. A late one cannot be
  # stopped safely (it may hold the application's locks), so it is left alone, and not started again while it runs.
  #
  # @api private
  class Callback
    @running = {}

    class << self
      # Blocks that outlived their deadline, by what they are for.
      attr_reader :running
    end

    # @raise [Unavailable] it raised, or did not come back in time
    def self.call(label, timeout)
      raise Unavailable, "#{label} has still not returned from an earlier call" if running[label]&.alive?

      thread = Thread.new do
        Thread.current.report_on_exception = false
        Thread.current.abort_on_exception = false
        Thread.current.name = "diagctl #{label}"
        Thread.current.thread_variable_set(:fork_safe, true)
        [:ok, yield]
      rescue Exception => e # rubocop:disable Lint/RescueException
        # Also SystemExit, which Ruby would carry from here to the main thread and so end the host.
        [:raised, e]
      end
      unless thread.join(timeout)
        running[label] = thread
        raise Unavailable, "#{label} did not return within #{format("%g", timeout)} s"
      end

      outcome, value = thread.value
      return value if outcome == :ok
      raise value if value.is_a?(Unavailable)

      raise Unavailable, "#{label} raised #{value.class}: #{Diagctl.one_line(value.message, 200)}" if outcome == :raised

      raise Unavailable, "#{label} ended its thread"
    end
  end
end
