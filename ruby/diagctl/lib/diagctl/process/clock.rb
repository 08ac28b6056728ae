# frozen_string_literal: true

module Diagctl
  # The monotonic clock, which is the only one used for measuring: wall time can jump.
  # Any thread, any process.
  #
  # @api private
  module Clock
    module_function

    # @return [Float] seconds
    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # @return [Float] CPU seconds of the calling thread, without the time that it waited for the GVL
    def thread_cpu
      Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID)
    end

    # @return [Float] milliseconds, to the microsecond
    def ms(seconds)
      (seconds * 1000.0).round(3)
    end
  end
end
