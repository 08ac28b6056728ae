# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # The Sidekiq of this process, read through its configuration: the module Sidekiq itself up to 6.5, a Sidekiq::Config from
    # 7.0 on. Thread that calls `install`, and the poll thread.
    #
    # @api private
    class Server
      OLDEST = "6.4"
      NAME = "sidekiq"

      def initialize(config)
        @config = config
      end

      # @return [String, nil] why diagctl cannot be installed here
      def refusal
        unless config?
          return "install takes the object that Sidekiq.configure_server yields, not #{Diagctl.one_line(@config.inspect, 60)}"
        end
        return "Sidekiq #{::Sidekiq::VERSION} is too old; #{OLDEST} or later is required" if too_old?

        "this process runs no jobs; call install inside Sidekiq.configure_server" unless serves?
      end

      def version
        ::Sidekiq::VERSION
      end

      def logger
        @config.logger
      end

      # Sidekiq's tag (`sidekiq -g mailers`), made valid as a name.
      def name
        tag = Diagctl.one_line(option(:tag)).sub(/\A[- ]+/, "").byteslice(0, LABEL_BYTES).scrub("").strip
        tag.empty? ? NAME : tag
      end

      # @return [Hash{String=>Hash}] concurrency and queues by capsule; up to 6.5 only the default capsule
      def capsules
        unless @config.respond_to?(:capsules)
          return { "default" => { concurrency: option(:concurrency), queues: option(:queues).uniq } }
        end

        @config.capsules.transform_values { |capsule| { concurrency: capsule.concurrency, queues: capsule.queues.uniq } }
      end

      def queues
        capsules.values.flat_map { |capsule| capsule[:queues] }.uniq
      end

      # Seconds that the oldest job of these queues has waited. One round trip to Redis per queue.
      def latency
        queues.map { |queue| ::Sidekiq::Queue.new(queue).latency }.max
      end

      private

      def config?
        defined?(::Sidekiq::VERSION) && @config.respond_to?(:server_middleware) && @config.respond_to?(:on)
      end

      def too_old?
        Gem::Version.new(::Sidekiq::VERSION) < Gem::Version.new(OLDEST)
      end

      # `Sidekiq.server?` does not know an embedded Sidekiq, whose file is loaded before it asks for its configuration.
      def serves?
        ::Sidekiq.server? || defined?(::Sidekiq::Embedded)
      end

      # Sidekiq 6.5 warns about `options`, and 6.4 has nothing else.
      def option(key)
        @config.respond_to?(:[]) ? @config[key] : @config.options[key]
      end
    end
  end
end
