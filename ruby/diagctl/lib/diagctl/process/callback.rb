# frozen_string_literal: true

module Diagctl
  # Runs a block of the application with a deadline: a feature flag that hangs must not end polling, and a report that hangs must
  # not keep the lease. A late block cannot be stopped safely, because it may hold locks of the application. It is left running,
  # and not called again until it returns.
  #
  # The blocks run in turn on one thread that stays, in the worker. Libraries keep things by thread, Active Record a connection:
  # with a thread for every call, each would leave one behind. In a Rails application the block runs within the executor, which
  # gives such things back.
  module Callback
    @running = {}
    @idle = []

    class << self
      # Threads that outlived their deadline, by label.
      attr_reader :running

      # @param label [String] names the block in messages
      # @param timeout [Float] seconds
      # @raise [Unavailable] the block raised, or did not return in time
      def call(label, timeout, &block)
        raise Unavailable, "#{label} has still not returned from an earlier call" if running[label]&.alive?

        # Array#pop and #push are atomic. Callers at the same time, of which there are hardly ever any, get threads of their own.
        thread = @idle.pop
        thread = CallbackThread.new unless thread&.alive?
        thread.name = "diagctl #{label}"
        outcome, value = thread.run(timeout) { in_executor(&block) }
        if outcome == :late
          running[label] = thread
          raise Unavailable, "#{label} did not return within #{format("%g", timeout)} s"
        end

        @idle.push(thread) unless outcome == :ended
        read(label, outcome, value)
      end

      # Ends the thread. The next call makes a new one.
      def release
        while (thread = @idle.pop)
          thread.retire
        end
      end

      private

      def read(label, outcome, value)
        case outcome
        when :ok then value
        when :ended then raise Unavailable, "#{label} ended its own thread"
        else
          raise value if value.is_a?(Unavailable)

          raise Unavailable, "#{label} raised #{value.class}: #{Diagctl.one_line(value.message, 200)}"
        end
      end

      def in_executor(&block)
        application = ::Rails.application if defined?(::Rails) && ::Rails.respond_to?(:application)
        application.respond_to?(:executor) ? application.executor.wrap(&block) : block.call
      end
    end
  end
end
