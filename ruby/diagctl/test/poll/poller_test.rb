# frozen_string_literal: true

require_relative "../polling"

class PollerTest < Minitest::Test
  include Polling

  def test_it_polls_no_more_often_than_retry_after_allows
    started = Diagctl::Clock.now
    start(binary("echo '#{JSON.generate(IDLE.merge("retry_after" => 0.3, "poll_interval" => 0.02))}'; exit 10"))
    eventually("some polls") { calls.size >= 5 }
    assert_operator Diagctl::Clock.now - started, :>=, 4 * 0.3
  end

  def test_a_warning_is_logged_once_and_polling_continues
    answer = JSON.generate(Sandbox::IDLE.merge("retry_after" => 0.05, "warning" => "rules[0].name: missing"))
    start(binary("echo '#{answer}'; exit 10"))
    eventually("three polls") { calls("acquire").size >= 3 }
    assert_equal ["rules[0].name: missing"], @logger.lines
  end

  # Puma without `preload_app!` loads the application after the hook that starts the thread.
  def test_configuration_during_boot_takes_effect
    booted = false
    @agent = agent(binary("exit 9"))
    @config.backoff = 600
    @poller = Diagctl::Poller.new(@agent, config: @config, log: @log, ready: -> { booted })
    @poller.start
    eventually("it waits") { @poller.instance_variable_get(:@thread).stop? }
    @config.backoff = 0.05
    booted = true
    eventually("polls at the pace that was configured") { calls("acquire").size >= 3 }
  end

  def test_stop_ends_the_thread_during_a_wait
    start(binary(IDLE_ANSWER))
    eventually("a poll") { calls("acquire").any? }
    assert @poller.stop(WOKEN)
  end
end
