# frozen_string_literal: true

module Diagctl
  VERSION = "0.1.0"
end
