# frozen_string_literal: true

module Diagctl
  # Waits that double after each failure in a row, and start anew after a success.
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

  # Which problems are being lived through: each is told once, and its end is told once.
  # Poll thread.
  #
  # @api private
  class ProblemLog
    def initialize(log)
      @log = log
      @known = {}
    end

    # @return [Boolean] whether it was told now
    def add(problem, retry_in:)
      return false if @known.key?(problem.key)

      @known[problem.key] = true
      @log.warn("#{problem.message}; trying again in #{format("%g", retry_in.round(3))} s, then less and less often")
      true
    end

    def clear
      return if @known.empty?

      @known.clear
      @log.info("polling works again")
    end
  end
end
