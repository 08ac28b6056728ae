# frozen_string_literal: true

module Diagctl
  # Runs a block of the application with a deadline: a feature flag that hangs must not end polling, and a report that hangs must
  # not keep the lease. The block runs in a thread of its own, in the worker. A late block cannot be stopped safely, because it may
  # hold locks of the application. It is left running, and not called again until it returns.
  #
  # @api private
  class Callback
    @running = {}

    class << self
      # Threads that outlived their deadline, by label.
      attr_reader :running
    end

    # @param label [String] names the block in messages
    # @param timeout [Float] seconds
    # @raise [Unavailable] the block raised, or did not return in time
    def self.call(label, timeout)
      raise Unavailable, "#{label} has still not returned from an earlier call" if running[label]&.alive?

      thread = Thread.new do
        Thread.current.report_on_exception = false
        Thread.current.abort_on_exception = false
        Thread.current.name = "diagctl #{label}"
        Thread.current.thread_variable_set(:fork_safe, true)
        [:ok, yield]
      rescue Exception => e # rubocop:disable Lint/RescueException
        # Rescues SystemExit too: Ruby would pass it on to the main thread and end the application.
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

      raise Unavailable, "#{label} ended its own thread"
    end
  end
end
