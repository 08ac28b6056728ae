# frozen_string_literal: true

# End-to-end tests with the real binary, the real gems and a real Puma. Every wait has a deadline and an explicit condition.
module E2E
  TooLate = Class.new(StandardError)

  # On an emulated machine (tests/kernel) everything takes several times as long. The deadlines are multiplied by this factor.
  PATIENCE = Integer(ENV.fetch("DIAGCTL_TEST_PATIENCE", "1"))

  module_function

  def clock = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  # Returns the first truthy value of the block. `tell` returns details for the error message if there is none in time.
  def wait_until(what, deadline: 60, every: 0.02, tell: nil)
    deadline *= PATIENCE
    limit = clock + deadline
    loop do
      value = yield
      return value if value
      raise TooLate, "not within #{deadline} s: #{what}\n#{tell&.call}" if clock > limit

      sleep every
    end
  end
end
