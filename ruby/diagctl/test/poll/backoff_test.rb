# frozen_string_literal: true

require_relative "../helper"

class BackoffTest < Minitest::Test
  def test_it_doubles_up_to_the_limit_and_starts_over
    backoff = Diagctl::Backoff.new(base: 10, max: 600)
    assert_equal [10, 20, 40, 80, 160, 320, 600, 600], Array.new(8) { backoff.next }
    backoff.reset
    assert_equal 10, backoff.next
  end
end
