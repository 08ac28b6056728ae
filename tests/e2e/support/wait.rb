# frozen_string_literal: true

# End-to-end tests: the real binary, the real gems, a real Puma. No wait without a deadline, and none that hopes.
module E2E
  TooLate = Class.new(StandardError)

  # On a machine that is emulated (tests/kernel) everything takes several times as long, and may.
  PATIENCE = Integer(ENV.fetch("DIAGCTL_TEST_PATIENCE", "1"))

  module_function

  def clock = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  # The first truthy value of the block. `tell` yields what helps to understand why it never came.
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
