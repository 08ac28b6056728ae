# frozen_string_literal: true

require_relative "../helper"

class ApplicationSwitchTest < Minitest::Test
  include Sandbox

  def test_the_enabled_block_is_called_before_every_poll_and_an_exception_means_off
    answer = -> { raise "flag service is down" }
    @config.enabled { answer.call }
    poll = -> { @agent.poll.verdict }
    @agent = agent(binary(IDLE_ANSWER))
    @agent.events.add("dropped")
    assert_equal %w[disabled disabled], [poll.call, poll.call]
    assert_equal ["enabled raised RuntimeError: flag service is down; diagctl is off until it returns true"], @logger.lines
    answer = -> {}
    assert_equal "disabled", poll.call
    answer = -> { exit }
    assert_equal "disabled", poll.call
    assert_empty calls
    refute_predicate @agent.events, :any?, "an event of an application that is off would make the poll thread spin"
    answer = -> { :yes }
    assert_equal "idle", poll.call
  end

  def test_an_enabled_block_that_hangs_means_off_and_is_not_called_again_meanwhile
    @config.callback_timeout = 0.1
    called = 0
    @config.enabled { (called += 1) && sleep }
    @agent = agent(binary(IDLE_ANSWER))
    3.times { assert_equal "disabled", @agent.poll.verdict }
    assert_equal 1, called
  ensure
    Diagctl::Callback.running.delete("enabled")&.kill
  end
end
