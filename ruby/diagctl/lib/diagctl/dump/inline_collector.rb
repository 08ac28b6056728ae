# frozen_string_literal: true

module Diagctl
  # Makes the inline reports and keeps them as strings, in the given order (cheapest first). Apart from the fork, this is the only
  # part of a capture that slows down the worker's other threads, so no report is started once the budget is used up.
  # Worker: poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class InlineCollector
    # This report sleeps for a given time. The budget does not apply to it.
    TIME_BOXED = "cpu_profile"

    attr_reader :collected, :failed, :took

    def initialize(reports, budget:)
      @reports = reports
      @budget = budget
      @collected = {}
      @failed = {}
      @took = {}
    end

    # @param granted_reports [Array<Grant::GrantedReport>]
    # @return [Float] CPU milliseconds of this thread. Wall time would include the wait for the GVL, in which the application's
    #   threads run
    def collect(granted_reports)
      cpu = Clock.thread_cpu
      started = Clock.now
      granted_reports.each do |granted|
        if Clock.now - started > @budget && granted.name != TIME_BOXED
          failed[granted.name] = "not started: earlier inline reports took more than #{format("%g", @budget)} s"
        else
          make(granted)
        end
      end
      Clock.ms(Clock.thread_cpu - cpu)
    end

    private

    def make(granted)
      started = Clock.now
      io = StringIO.new(String.new(encoding: Encoding::BINARY))
      @reports.fetch(granted.name).call(io, granted.options)
      raise Unavailable, "the report is empty" if io.string.empty?

      collected[granted.name] = io.string
      took[granted.name] = Clock.ms(Clock.now - started)
    rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
      failed[granted.name] = e.is_a?(Unavailable) ? e.message : "#{e.class}: #{e.message}"
    end
  end
end
