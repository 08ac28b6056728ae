# frozen_string_literal: true

require_relative "../helper"

# What the application is asked before a poll.
class ReadingsTest < Minitest::Test
  include Sandbox

  def test_the_enabled_block_is_asked_before_every_poll_and_an_exception_is_off_and_told_once
    answer = -> { raise "flag service is down" }
    @config.enabled { answer.call }
    poll = -> { @agent.poll.verdict }
    @agent = agent(binary(IDLE_ANSWER))
    @agent.events.add("dropped")
    assert_equal %w[disabled disabled], [poll.call, poll.call]
    assert_equal ["enabled raised RuntimeError: flag service is down; this counts as off"], @logger.lines
    answer = -> {}
    assert_equal "disabled", poll.call
    answer = -> { exit }
    assert_equal "disabled", poll.call
    assert_empty calls
    refute_predicate @agent.events, :any?, "an event of an application that is off would make the poll thread spin"
    answer = -> { :yes }
    assert_equal "idle", poll.call
  end

  def test_an_enabled_block_that_hangs_is_off_and_is_not_called_again_meanwhile
    @config.callback_timeout = 0.1
    called = 0
    @config.enabled { (called += 1) && sleep }
    @agent = agent(binary(IDLE_ANSWER))
    3.times { assert_equal "disabled", @agent.poll.verdict }
    assert_equal 1, called
  ensure
    Diagctl::Callback.running.delete("enabled")&.kill
  end

  def test_gauges_that_are_no_numbers_are_left_out_and_told_once
    never_shown = Object.new
    never_shown.define_singleton_method(:inspect) { raise "a query, say, or a customer's name" }
    values = { "a.int" => 7, "a.float" => 1.5, "a.rational" => 1r / 4, "b.text" => "7", "b.nan" => Float::NAN, "b.nil" => nil,
               "b.huge" => 10**400, "b.object" => never_shown }
    values.each { |name, value| @config.gauge(name) { value } }
    @config.gauge("b.raises") { raise "no" }
    @agent = agent(binary(IDLE_ANSWER))
    2.times { @agent.poll }
    line = calls("acquire").last
    %w[a.int=7 a.float=1.5 a.rational=0.25].each { |gauge| assert_includes line, "--gauge=#{gauge}" }
    refute_match(/--gauge=b/, line)
    assert_match(/--gauge=gc\.major_count=\d+/, line)
    assert_equal 5, @logger.lines.size, @logger.lines.inspect
    assert_includes @logger.lines, "gauge b.object gave an object of Object, which is not a finite number"
  end
end
