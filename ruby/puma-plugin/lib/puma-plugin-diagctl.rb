# frozen_string_literal: true

# Bundler requires this file, because it has the name of the gem. Puma loads the plugin itself, perhaps before Rails.
require "diagctl"
require "diagctl/railtie" if defined?(Rails::Railtie)
