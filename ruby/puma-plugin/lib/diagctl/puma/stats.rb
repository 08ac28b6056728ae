# frozen_string_literal: true

module Diagctl
  module Puma
    # State of the Puma server in this process, as gauges and as the report `puma`.
    # Poll thread of a worker.
    #
    # Finds the server through the thread attribute that Puma itself sets. `Puma.stats_hash` does not work: in a worker it is
    # the master's object, frozen at the fork. `Server#stats` would reset Puma's own maxima (from 7.1 on), so the numbers are
    # read one by one.
    #
    # @api private
    class Stats
      NUMBERS = %i[backlog running pool_capacity max_threads requests_count].freeze
      OPTIONS = %i[workers min_threads max_threads preload_app fork_worker environment worker_check_interval
        worker_timeout queue_requests wait_for_less_busy_worker].freeze

      def initialize(options)
        @options = options
      end

      def gauges
        {
          "puma.backlog" => -> { server&.backlog },
          "puma.running" => -> { server&.running },
          "puma.busy_threads" => -> { busy_threads },
          "puma.max_threads" => -> { server&.max_threads }
        }
      end

      # Checks the name that Puma gives to the server's thread. Up to Puma 7.0 the thread attribute below exists only after the
      # first request.
      def serving?
        Thread.list.any? { |thread| thread.name.to_s.start_with?("puma srv") }
      end

      # Writes the report.
      def call(io, _options)
        found = server or raise Unavailable, missing
        io.write(JSON.generate(
          version: ::Puma::Const::VERSION,
          server: NUMBERS.to_h { |name| [name, found.public_send(name) || 0] }.merge(busy_threads: busy_threads),
          options: OPTIONS.to_h { |name| [name, plain(@options[name])] }.compact
        ))
      end

      private

      def missing
        return "no Puma server is running in this process" unless serving?

        "Puma has served no request in this process yet; up to Puma 7.0 its numbers are available only after the first one"
      end

      # Number of threads that neither wait for work nor could still be started. Puma's own number is on its thread pool, which is
      # private.
      def busy_threads
        found = server or return
        capacity = found.pool_capacity
        found.max_threads - capacity if capacity
      end

      # Up to 6.4 Puma sets the server as a fiber-local variable, from 6.5 on as a thread attribute. Up to 7.0 it does so when a
      # thread of the pool takes its first request, from 7.1 on when that thread starts. Until then there is no reading.
      def server
        return @server if @pid == Process.pid && @thread&.alive?

        attribute = Thread.method_defined?(:puma_server)
        Thread.list.each do |thread|
          found = (thread.puma_server if attribute) || thread[:puma_server]
          next if found.nil?

          @thread = thread
          @pid = Process.pid
          return @server = found
        end
        @server = nil
      end

      def plain(value)
        case value
        when nil, true, false, Numeric, String then value
        when Symbol then value.to_s
        end
      end
    end
  end
end
