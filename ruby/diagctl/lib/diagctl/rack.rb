# frozen_string_literal: true

require "diagctl"

module Diagctl
  # Rack middleware: `diagctl deaths` then names the routes that a process worked on. Only for frameworks that say the pattern of the
  # route in the environment; Rails needs no middleware.
  #
  #   require "diagctl/rack"
  #   use Diagctl::Rack
  #
  # Thread of the request. The pattern is known only once the framework has chosen the route, so the poll thread looks for it.
  class Rack
    # Sinatra, Rails (from 7.1 on).
    PATTERNS = %w[sinatra.route action_dispatch.route_uri_pattern].freeze

    def initialize(app)
      @app = app
      @work = Diagctl.work
    end

    def call(env)
      before = @work.start(-> { PATTERNS.filter_map { |key| env[key] }.first })
      @app.call(env)
    ensure
      @work.finish(before)
    end
  end
end
