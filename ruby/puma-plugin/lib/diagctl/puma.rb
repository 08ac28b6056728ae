# frozen_string_literal: true

require "diagctl"
require_relative "puma/version"
require_relative "puma/application"
require_relative "puma/stats"
require_relative "puma/oom_kills"
require_relative "puma/workers"

module Diagctl
  # Connects the core gem to Puma 5.6 to 8.0, in cluster and single mode.
  #
  # `install` runs in the process that Puma starts in (the master of a cluster), before it forks. There it starts no thread and
  # loads only files of diagctl's own (see Runtime). The hooks run in each worker, including those that worker 0 forks with
  # `fork_worker`.
  #
  # @api private
  module Puma
    ROLE = "puma"

    # Writes to Puma's own log, where operators look. Never uses its `error`, which ends the process.
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
        # Puma 6 split `events` into events and log_writer.
        Diagctl.log.default = Logger.new(launcher.respond_to?(:log_writer) ? launcher.log_writer : launcher.events)
        return unless Diagctl.wanted?

        # Before the workers are forked, so that they share the code. Each worker loads the other libraries after its bundle is
        # set up.
        Reports.load
        cluster = launcher.options[:workers].to_i.positive?
        stats = Stats.new(launcher.options)
        Diagctl.adapters.add("puma", version: ::Puma::Const::VERSION, gauges: stats.gauges, reports: { "puma" => stats })
        cluster ? at_worker_boot(launcher, stats) : at_boot(launcher)
        watch_workers(launcher) if cluster
      rescue StandardError, ScriptError => e
        Diagctl.log.warn_once(:puma, "the Puma plugin is off: #{e.class}: #{e.message}")
      end

      private

      # Adds the hook as if it stood in the user's file. Among the defaults it would make Puma 6 overlook the number of workers
      # that the file sets, and warn that the hook will not run.
      def at_worker_boot(launcher, stats)
        plugin = self
        application = Application.new(Process.pid)
        application.watch(launcher.config)
        launcher.config.configure do |_user, file, _default|
          # Renamed in Puma 7, which warns about the old name.
          hook = file.respond_to?(:before_worker_boot) ? :before_worker_boot : :on_worker_boot
          file.public_send(hook) do |index|
            application.worker_boots
            plugin.send(:start, "worker-#{index}", -> { stats.serving? })
          end
        end
      end

      def watch_workers(launcher)
        dir = ENV["DIAGCTL_DIR"].to_s
        Workers.new(File.absolute_path(dir)).watch(launcher) unless dir.empty?
      end

      def at_boot(launcher)
        events = launcher.events
        # Renamed in Puma 7, which warns about the old name.
        hook = events.respond_to?(:after_booted) ? :after_booted : :on_booted
        events.public_send(hook) { start("single", nil) }
      end

      # Without preload_app! the worker-boot hook runs before the application is loaded. The first poll therefore waits until Puma
      # serves: by then the application has set up its bundle and called `Diagctl.configure`.
      def start(name, ready)
        Diagctl.start(role: ROLE, name: name, ready: ready)
      end
    end
  end
end
