# frozen_string_literal: true

require_relative "../helper"

class WaitTest < Minitest::Test
  def wait(retry_after, poll_interval = 10.0, seen: :before)
    Diagctl::Wait.new(now: 100.0, retry_after: retry_after, poll_interval: poll_interval, seen: seen)
  end

  def test_it_sleeps_in_steps_of_the_poll_interval
    assert_in_delta 10.0, wait(60).sleep_for(100.0)
    assert_in_delta 5.0, wait(60).sleep_for(155.0)
    assert_in_delta 3.0, wait(3).sleep_for(100.0)
    assert_equal 0, wait(3).sleep_for(104.0)
  end

  def test_it_is_over_when_due_or_when_requests_changed
    refute wait(60).over?(159.0, :before)
    assert wait(60).over?(160.0, :before)
    assert wait(60).over?(101.0, :after)
  end

  def test_an_event_ends_the_wait_only_some_time_after_the_answer
    wait = wait(60)
    assert_in_delta 1.0, wait.sleep_for(100.0, event: true)
    refute wait.event_due?(100.9)
    assert wait.event_due?(101.0)
    assert_equal 0, wait.sleep_for(101.5, event: true)
    assert_in_delta 0.3, wait(0.3).sleep_for(100.0, event: true)
  end

  def test_no_answer_makes_it_spin_or_sleep_forever
    assert_in_delta 0.02, wait(0, 0).sleep_for(100.0)
    assert wait(1e12).over?(100.0 + 3600, :before)
  end
end
