# frozen_string_literal: true

require "diagctl"
require_relative "sidekiq/version"
require_relative "sidekiq/rss"
require_relative "sidekiq/jobs"
require_relative "sidekiq/server_middleware"
require_relative "sidekiq/server"
require_relative "sidekiq/report"

module Diagctl
  # Ties the core to Sidekiq 6.4 to 8.1: the command, a swarm of forked processes, and embedded.
  #
  #   Sidekiq.configure_server { |config| Diagctl::Sidekiq.install(config) }
  #
  # Needs no Sidekiq to be loaded, and loads none. Nothing here raises into Sidekiq.
  module Sidekiq
    ROLE = "sidekiq"
    # Of the time that Sidekiq gives its jobs to end. A dump that was forked does not need it.
    STOP_WAIT = 2

    @jobs = Jobs.new(Diagctl.log)

    # Sidekiq's own log, where its operators look, whichever that is at the time.
    class Logger
      def initialize(server)
        @server = server
      end

      def info(message)
        @server.logger.info("[diagctl] #{message}")
      end

      def warn(message)
        @server.logger.warn("[diagctl] #{message}")
      end
    end

    class << self
      # @api private
      attr_reader :jobs

      # The poll thread will run from Sidekiq's `startup` to its `shutdown` (through `quiet`), in each process that runs jobs.
      #
      # @param config [Sidekiq::Config, Module] what `Sidekiq.configure_server` yields
      # @param name [String, nil] which of several like it; else Sidekiq's tag, else "sidekiq"
      # @param job_rss [Boolean] measure by how much the process grows during each job
      # @param queue_latency [Boolean] ask Redis before every poll how long the oldest job waits
      # @return [Boolean] whether it is installed now; when not, the log says why
      def install(config, name: nil, job_rss: false, queue_latency: false)
        return refuse("it is installed already, and the first call stands") if @installed

        server = Server.new(config)
        reason = server.refusal
        return refuse(reason) if reason

        Diagctl.log.default = Logger.new(server)
        return off unless Diagctl.wanted?

        require "sidekiq/api" if queue_latency
        hook(config, server, name, job_rss, queue_latency)
        @installed = true
      rescue StandardError, ScriptError => e
        refuse("#{e.class}: #{e.message}")
      end

      private

      def hook(config, server, name, job_rss, queue_latency)
        # Before a swarm forks, so that its processes share the code. What else is needed, each loads at its start.
        Reports.load
        report = Report.new(server, @jobs)
        Diagctl.adapters.add("sidekiq", version: server.version, gauges: report.gauges(latency: queue_latency),
          reports: { "sidekiq" => report })
        config.on(:startup) do
          @jobs.measure { Rss.new } if job_rss
          start(name || server.name)
        end
        config.on(:shutdown) { stop }
        # First, so that what other middleware does counts as the job's.
        config.server_middleware { |chain| chain.prepend(ServerMiddleware) }
      end

      # Where Sidekiq is embedded in a Puma with the plugin, the thread is Puma's, although it mostly starts later: hooks of
      # puma.rb run before those of plugins.
      def start(name)
        return if Diagctl.started? || Diagctl.adapters.versions.key?("puma")

        @started = Process.pid if Diagctl.start(role: ROLE, name: name)
      end

      def stop
        Diagctl.stop(timeout: STOP_WAIT) if @started == Process.pid
      end

      def refuse(reason)
        Diagctl.log.warn_once([:sidekiq, reason], "Diagctl::Sidekiq.install did nothing: #{reason}")
        false
      end

      # Whoever wrote the call would else wonder. What is wrong with the switch was said already.
      def off
        switch = Switch.new
        Diagctl.log.info("off in this process: DIAGCTL_ENABLED is #{ENV.fetch("DIAGCTL_ENABLED", "not set")}") unless switch.on? || switch.warning
        false
      end
    end
  end
end
