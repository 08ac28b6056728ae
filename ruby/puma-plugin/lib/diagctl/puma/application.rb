# frozen_string_literal: true

module Diagctl
  module Puma
    # Notices when Puma has loaded the application of a cluster, and with it the bundle. From then on a worker may load what diagctl
    # needs. It does so before it serves, because among busy threads loading takes seconds.
    #
    # Created in the master, which loads nothing. Main thread of each worker. If Puma does not load the application this way,
    # the poll thread loads the libraries once Puma serves.
    #
    # @api private
    class Application
      # @param master [Integer] pid of the master
      def initialize(master)
        @master = master
        @loaded = false
      end

      # Hooks into Puma's configuration, which Puma asks for the application: in the master with `preload_app!`, else in the worker.
      def watch(config)
        return unless config.respond_to?(:app)

        application = self
        config.define_singleton_method(:app) { super().tap { application.loaded } }
      end

      def loaded
        @loaded = true
        load unless Process.pid == @master
      end

      # Also called in a worker that worker 0 forks, where the application is loaded already.
      def worker_boots
        load if @loaded
      end

      private

      def load
        Runtime.load
      rescue StandardError, ScriptError
        nil # The poll thread tries again, and logs the error.
      end
    end
  end
end
