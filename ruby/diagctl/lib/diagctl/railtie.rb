# frozen_string_literal: true

require_relative "rails/release"

module Diagctl
  # Labels captures with the release, and brings the rake tasks. Loaded only where Rails is; starts nothing.
  #
  # @api private
  class Railtie < ::Rails::Railtie
    # Before the initializers of the application, whose own label wins.
    initializer "diagctl.release", before: :load_config_initializers do |app|
      release = Release.of(app.root)
      Diagctl.configure { |c| c.label(:release, release) } if release
    end

    rake_tasks { load File.expand_path("rails/tasks.rake", __dir__) }
  end
end
