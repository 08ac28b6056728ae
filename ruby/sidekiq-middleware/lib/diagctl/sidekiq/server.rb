# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # The Sidekiq of this process as its configuration describes it: the module Sidekiq itself up to 6.5, a
    # Sidekiq::Config from 7.0 on.
    #
    # @api private
    class Server
      OLDEST = "6.4"
      NAME = "sidekiq"

      def initialize(config)
        @config = config
      end

      # @return [String, nil] why nothing can be installed here
      def refusal
        return "install takes what Sidekiq.configure_server yields, not #{Diagctl.one_line(@config.inspect, 60)}" unless config?
        return "Sidekiq #{::Sidekiq::VERSION} is too old, #{OLDEST} or later is needed" if too_old?

        "this process runs no jobs; call install within Sidekiq.configure_server" unless serves?
      end

      def version
        ::Sidekiq::VERSION
      end

      def logger
        @config.logger
      end

      # Sidekiq's tag (`sidekiq -g mailers`), as far as it can be a name.
      def name
        tag = Diagctl.one_line(option(:tag)).sub(/\A[- ]+/, "").byteslice(0, LABEL_BYTES).scrub("").strip
        tag.empty? ? NAME : tag
      end

      # @return [Hash{String=>Hash}] concurrency and queues by capsule; up to 6.5 there is the default one only
      def capsules
        unless @config.respond_to?(:capsules)
          return { "default" => { concurrency: option(:concurrency), queues: option(:queues).uniq } }
        end

        @config.capsules.transform_values { |capsule| { concurrency: capsule.concurrency, queues: capsule.queues.uniq } }
      end

      def queues
        capsules.values.flat_map { |capsule| capsule[:queues] }.uniq
      end

      # Seconds that the oldest job of these queues has waited. One round trip a queue.
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

      # `Sidekiq.server?` knows nothing of an embedded Sidekiq, whose file is loaded before it asks for its configuration.
      def serves?
        ::Sidekiq.server? || defined?(::Sidekiq::Embedded)
      end

      # Sidekiq 6.5 warns of `options`, and 6.4 has nothing else.
      def option(key)
        @config.respond_to?(:[]) ? @config[key] : @config.options[key]
      end
    end
  end
end
