# frozen_string_literal: true

module Diagctl
  # The one monotonic clock. Wall time never measures anything here: it can step.
  # Any thread, any process.
  #
  # @api private
  module Clock
    module_function

    # @return [Float] seconds
    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # @return [Float] CPU seconds of the calling thread: what a thread that waits for the GVL did not take from others
    def thread_cpu
      Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID)
    end

    # @return [Float] milliseconds, to the microsecond
    def ms(seconds)
      (seconds * 1000.0).round(3)
    end
  end
end
