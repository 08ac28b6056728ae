# frozen_string_literal: true

module Diagctl
  module Puma
    # Knows when the application of a cluster has been loaded, and its bundle with it: from then on a worker may load what
    # diagctl needs, and does so before it serves, because among busy threads that takes seconds.
    #
    # Made in the master, which only takes note. Main thread of each worker. Where Puma should not come past here, the poll
    # thread loads when Puma serves.
    #
    # @api private
    class Application
      # @param master [Integer] its pid
      def initialize(master)
        @master = master
        @loaded = false
      end

      # Puma asks its configuration for the application: in the master with `preload_app!`, else in the worker.
      def watch(config)
        return unless config.respond_to?(:app)

        application = self
        config.define_singleton_method(:app) { super().tap { application.loaded } }
      end

      def loaded
        @loaded = true
        load unless Process.pid == @master
      end

      # Also of a worker that worker 0 forks, whose application is there.
      def worker_boots
        load if @loaded
      end

      private

      def load
        Runtime.load
      rescue StandardError, ScriptError
        nil # The poll thread comes to it again, and tells.
      end
    end
  end
end
