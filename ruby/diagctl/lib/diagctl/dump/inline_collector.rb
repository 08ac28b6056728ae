# frozen_string_literal: true

module Diagctl
  # Collects the inline reports into strings, in the order given (cheapest first). The only part of a capture, with
  # the fork itself, that the worker's other threads feel: so nothing is begun after the budget is used up.
  # Worker: poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class InlineCollector
    # Takes the time that it is told to take, sleeping.
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
    # @return [Float] milliseconds of CPU that this thread used. Its wall time would count the waiting for the GVL,
    #   in which the host's threads run, as the host's pause.
    def collect(granted_reports)
      cpu = Clock.thread_cpu
      started = Clock.now
      granted_reports.each do |granted|
        if Clock.now - started > @budget && granted.name != TIME_BOXED
          failed[granted.name] = "not begun: the inline reports before it took more than #{format("%g", @budget)} s"
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
      raise Unavailable, "it wrote nothing" if io.string.empty?

      collected[granted.name] = io.string
      took[granted.name] = Clock.ms(Clock.now - started)
    rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
      failed[granted.name] = e.is_a?(Unavailable) ? e.message : "#{e.class}: #{e.message}"
    end
  end
end
