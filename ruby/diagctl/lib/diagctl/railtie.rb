# frozen_string_literal: true

require_relative "rails/release"
require_relative "rails/requests"

module Diagctl
  # Labels captures with the release, names the actions in progress, and brings the rake tasks. Loaded only where Rails is; starts nothing.
  #
  # @api private
  class Railtie < ::Rails::Railtie
    # Before the initializers of the application, whose own label wins.
    initializer "diagctl.release", before: :load_config_initializers do |app|
      release = Release.of(app.root)
      Diagctl.configure { |c| c.label(:release, release) } if release
    end

    # Costs nothing where diagctl is off.
    initializer "diagctl.requests" do
      ActiveSupport::Notifications.subscribe(Requests::EVENT, Requests.new(Diagctl.work)) if Switch.new.on?
    end

    rake_tasks { load File.expand_path("rails/tasks.rake", __dir__) }
  end
end
