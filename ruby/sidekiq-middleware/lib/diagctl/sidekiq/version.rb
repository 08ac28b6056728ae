# frozen_string_literal: true

module Diagctl
  module Sidekiq
    VERSION = "0.1.0"
  end
end
