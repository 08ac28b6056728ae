# frozen_string_literal: true

module Diagctl
  # Logs each problem once, and once that polling works again. Poll thread.
  #
  # @api private
  class ProblemLog
    def initialize(log)
      @log = log
      @known = {}
    end

    # @return [Boolean] whether the problem was new and has been logged
    def add(problem, retry_in:)
      return false if @known.key?(problem.key)

      @known[problem.key] = true
      @log.warn("#{problem.message}; trying again in #{format("%g", retry_in.round(3))} s, then at growing intervals")
      true
    end

    def clear
      return if @known.empty?

      @known.clear
      @log.info("polling works again")
    end
  end
end
