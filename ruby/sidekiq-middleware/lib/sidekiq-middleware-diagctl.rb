# frozen_string_literal: true

# The former name of the gem.
require "diagctl/sidekiq"
require "diagctl/railtie" if defined?(Rails::Railtie)
