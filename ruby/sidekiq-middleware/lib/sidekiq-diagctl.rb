# frozen_string_literal: true

# Bundler requires this file, because it has the name of the gem.
require "diagctl/sidekiq"
require "diagctl/railtie" if defined?(Rails::Railtie)
