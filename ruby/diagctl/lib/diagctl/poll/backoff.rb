# frozen_string_literal: true

module Diagctl
  # Waits that double after each consecutive failure and start over after a success. Poll thread. Pure.
  #
  # @api private
  class Backoff
    def initialize(base:, max:)
      @base = base
      @max = max
      reset
    end

    # @return [Float] seconds to wait after this failure
    def next
      delay = @delay
      @delay = [delay * 2, @max].min
      delay
    end

    def reset
      @delay = [@base, @max].min
    end
  end
end
