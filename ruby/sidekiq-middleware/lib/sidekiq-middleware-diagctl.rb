# frozen_string_literal: true

# What Bundler requires by itself: the name of the gem.
require "diagctl/sidekiq"
