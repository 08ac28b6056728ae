# frozen_string_literal: true

require "diagctl"
require_relative "puma/version"
require_relative "puma/application"
require_relative "puma/stats"

module Diagctl
  # Ties the core to Puma 5.6 to 8.0, in cluster and in single mode.
  #
  # `install` runs in the process that Puma starts in (the master of a cluster), before it forks: it starts no thread
  # there and loads nothing but files of diagctl's own (see Runtime). The hooks run in each worker, also in those that
  # worker 0 forks under `fork_worker`.
  #
  # @api private
  module Puma
    ROLE = "puma"

    # Puma's own log, where its operators look. Never its `error`: that ends the process.
    class Logger
      def initialize(writer)
        @writer = writer
      end

      def info(message)
        @writer.log("[diagctl] #{message}")
      end
      alias warn info
    end

    class << self
      def install(launcher)
        # Puma 6 divided `events` into events and log_writer.
        Diagctl.log.default = Logger.new(launcher.respond_to?(:log_writer) ? launcher.log_writer : launcher.events)
        return unless Diagctl.wanted?

        # Before the workers are forked, so that they share the code. What else is needed, each loads after its bundle.
        Reports.load
        cluster = launcher.options[:workers].to_i.positive?
        stats = Stats.new(launcher.options)
        Diagctl.adapters.add("puma", version: ::Puma::Const::VERSION, gauges: stats.gauges, reports: { "puma" => stats })
        cluster ? at_worker_boot(launcher, stats) : at_boot(launcher)
      rescue StandardError, ScriptError => e
        Diagctl.log.warn_once(:puma, "the Puma plugin is off: #{e.class}: #{e.message}")
      end

      private

      # As if it stood in the user's file. Not through the defaults: there Puma 6 overlooks the number of workers that
      # the file sets, and warns that the hook will not run.
      def at_worker_boot(launcher, stats)
        plugin = self
        application = Application.new(Process.pid)
        application.watch(launcher.config)
        launcher.config.configure do |_user, file, _default|
          # Renamed in Puma 7, which warns of the old name.
          hook = file.respond_to?(:before_worker_boot) ? :before_worker_boot : :on_worker_boot
          file.public_send(hook) do |index|
            application.worker_boots
            plugin.send(:start, "worker-#{index}", -> { stats.serving? })
          end
        end
      end

      def at_boot(launcher)
        events = launcher.events
        # Renamed in Puma 7, which warns of the old name.
        hook = events.respond_to?(:after_booted) ? :after_booted : :on_booted
        events.public_send(hook) { start("single", nil) }
      end

      # The worker-boot hook comes before the application is loaded when it is not preloaded. The first poll waits
      # until Puma serves: only then has the application set up its bundle and had its say in `Diagctl.configure`.
      def start(name, ready)
        Diagctl.start(role: ROLE, name: name, ready: ready)
      end
    end
  end
end
