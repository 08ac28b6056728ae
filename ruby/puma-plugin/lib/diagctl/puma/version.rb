# frozen_string_literal: true

module Diagctl
  module Puma
    VERSION = "0.1.0"
  end
end
