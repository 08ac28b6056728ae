# frozen_string_literal: true

# The former name of the gem.
require "diagctl/sidekiq"
