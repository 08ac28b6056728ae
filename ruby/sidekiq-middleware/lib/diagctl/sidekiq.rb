# frozen_string_literal: true

require "diagctl"
require_relative "sidekiq/version"
require_relative "sidekiq/rss"
require_relative "sidekiq/jobs"
require_relative "sidekiq/server_middleware"
require_relative "sidekiq/server"
require_relative "sidekiq/report"

module Diagctl
  # Connects the core gem to Sidekiq 6.4 to 8.1: the command, a swarm of forked processes, and embedded Sidekiq.
  #
  #   Sidekiq.configure_server { |config| Diagctl::Sidekiq.install(config) }
  #
  # Does not require Sidekiq, and does not load it. Nothing here raises into Sidekiq.
  module Sidekiq
    ROLE = "sidekiq"
    # Seconds of the time that Sidekiq gives its jobs to end. A dump that has been forked needs none of it.
    STOP_WAIT = 2

    @jobs = Jobs.new(Diagctl.log)

    # Writes to Sidekiq's own log, where operators look. Looks the logger up for each line, because the application may replace it.
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

      # Runs the poll thread from Sidekiq's `startup` to its `shutdown` (also while quiet), in each process that runs jobs.
      #
      # @param config [Sidekiq::Config, Module] the object that `Sidekiq.configure_server` yields
      # @param name [String, nil] tells processes of this role apart; by default Sidekiq's tag, else "sidekiq"
      # @param job_rss [Boolean] measure how much the process grows during each job
      # @param queue_latency [Boolean] ask Redis before every poll how long the oldest job has been waiting
      # @return [Boolean] whether it is installed now; if not, the log says why
      def install(config, name: nil, job_rss: false, queue_latency: false)
        return refuse("it is already installed, and the first call remains in effect") if @installed

        server = Server.new(config)
        reason = server.refusal
        return refuse(reason) if reason

        Diagctl.log.default = Logger.new(server)
        return false unless Diagctl.wanted?

        require "sidekiq/api" if queue_latency
        hook(config, server, name, job_rss, queue_latency)
        @installed = true
      rescue StandardError, ScriptError => e
        refuse("#{e.class}: #{e.message}")
      end

      private

      def hook(config, server, name, job_rss, queue_latency)
        # Before a swarm forks, so that its processes share the code. Each process loads the other libraries at its start.
        Reports.load
        report = Report.new(server, @jobs)
        Diagctl.adapters.add("sidekiq", version: server.version, gauges: report.gauges(latency: queue_latency),
          counts: -> { @jobs.running_by_class }, reports: { "sidekiq" => report })
        config.on(:startup) do
          @jobs.measure { Rss.new } if job_rss
          start(name || server.name)
        end
        config.on(:shutdown) { stop }
        # First in the chain, so that the work of other middleware counts as the job's.
        config.server_middleware { |chain| chain.prepend(ServerMiddleware) }
      end

      # When Sidekiq is embedded in a Puma that has the plugin, Puma's plugin starts the thread, although usually later: hooks
      # of puma.rb run before those of plugins.
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
    end
  end
end
