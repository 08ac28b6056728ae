# frozen_string_literal: true

require_relative "../helper"

class ApplicationSwitchTest < Minitest::Test
  include Sandbox

  OFF = "switched off by the application: its `c.enabled` does not return true"

  def test_the_enabled_block_is_called_before_every_poll_and_an_exception_means_off
    answer = -> { raise "flag service is down" }
    @config.enabled { answer.call }
    poll = -> { @agent.poll.verdict }
    @agent = agent(binary(IDLE_ANSWER))
    @agent.events.add("dropped")
    assert_equal %w[disabled disabled], [poll.call, poll.call]
    assert_equal ["enabled raised RuntimeError: flag service is down; diagctl is off until it returns true",
                  "takes no captures: #{OFF}"], @logger.lines
    answer = -> {}
    assert_equal "disabled", poll.call
    answer = -> { exit }
    assert_equal "disabled", poll.call
    assert_empty calls.grep_v(/--off\z/)
    refute_predicate @agent.events, :any?, "an event of an application that is off would make the poll thread spin"
    answer = -> { :yes }
    assert_equal "idle", poll.call
    assert_equal "captures are on again", @logger.lines.last
  end

  # `diagctl status` then names the switch. A poll would cost as much, so the store is told when the switch is found off, and
  # again when the answer asks for it; the switch itself is looked at often.
  def test_the_store_is_told_once_that_the_application_is_off
    on = false
    @config.enabled { on }
    @agent = agent(binary("echo '#{JSON.generate(IDLE.merge("verdict" => "disabled", "retry_after" => 60, "poll_interval" => 0.2))}'; exit 10"))
    result = Array.new(3) { @agent.poll }.last
    assert_equal ["disabled", OFF, 0.2], [result.verdict, result.reason, result.retry_after]
    assert_equal ["acquire --lease-fd=3 --pid=#{Process.pid} --role=puma --name=worker-0 --off"], calls
    on = true
    @agent.poll
    on = false
    2.times { @agent.poll }
    assert_equal 2, calls.grep(/--off\z/).size
  end

  def test_a_store_that_cannot_be_told_is_no_problem_of_an_application_that_is_off
    @config.enabled { false }
    @agent = agent(binary("exit 3"))
    2.times { assert_equal "disabled", @agent.poll.verdict }
    assert_equal 1, calls.size
    assert_equal ["takes no captures: #{OFF}"], @logger.lines
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
