# frozen_string_literal: true

module Diagctl
  # Makes the inline reports and keeps them as strings, in the given order (cheapest first). Apart from the fork, this is the only
  # part of a capture that slows down the worker's other threads, so no report is started once the budget is used up: CPU time of
  # the threads that make them. Wall time would count what the application's own threads use up meanwhile.
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
    # @return [Float] CPU milliseconds
    def collect(granted_reports)
      started = Clock.thread_cpu
      @foreign_cpu = 0.0
      granted_reports.each do |granted|
        if spent(started) > @budget && granted.name != TIME_BOXED
          failed[granted.name] = "not started: earlier inline reports took more than #{format("%g", @budget)} s of CPU time"
        else
          make(granted)
        end
      end
      Clock.ms(spent(started))
    end

    private

    def spent(started)
      Clock.thread_cpu - started + @foreign_cpu
    end

    def make(granted)
      started = Clock.now
      io = Reports::Buffer.new(granted.options["max_size"])
      @reports.fetch(granted.name).call(io, granted.options)
      raise Unavailable, "the report is empty" if io.string.empty?

      collected[granted.name] = io.string
      took[granted.name] = Clock.ms(Clock.now - started)
    rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
      failed[granted.name] = e.is_a?(Unavailable) ? e.message : "#{e.class}: #{e.message}"
    ensure
      @foreign_cpu += io.foreign_cpu if io
    end
  end
end
