# frozen_string_literal: true

require_relative "../polling"

# Every failure of a poll is logged once, and polling continues.
class PollerFailuresTest < Minitest::Test
  include Polling

  def test_every_failure_is_logged_once_and_polling_backs_off_and_recovers
    {
      "exec sleep 60" => /did not end within 0.2 s and was killed/,
      "echo Segmentation fault; exit 10" => /gave an answer that cannot be used/,
      "exit 0" => /gave an answer that cannot be used/,
      "kill -SEGV $$" => /was killed by SIGSEGV/,
      "echo 'bad key' >&2; exit 3" => /ended with status 3: bad key/,
      "exit 99" => /ended with status 99/
    }.each do |body, message|
      @config.acquire_timeout = 0.2
      @logger.lines.clear
      start(binary(body))
      eventually("three polls of #{body}") { calls("acquire").size >= 3 }
      eventually("a line about #{body}") { @logger.lines.any? }
      assert_equal 1, @logger.lines.size, @logger.lines.inspect
      assert_match message, @logger.lines.first
      @config.acquire_timeout = 5
      binary(IDLE_ANSWER)
      eventually("a line about the recovery from #{body}") { @logger.lines.include?("polling works again") }
      assert @poller.stop(5)
      File.delete(File.join(@store, "calls"))
    end
  end

  # A path can contain any bytes. Logging them must not end the poll thread.
  def test_a_failure_with_a_path_that_is_not_utf8_is_logged_and_polling_continues
    ["\xE9", "\xE9".b, "\u00E9".b].each do |component|
      @logger.lines.clear
      with_dir(File.join(@dir, "none".b, component, "store")) { assert_failure_is_logged_and_polling_continues }
      assert_match(/\Athe store .* cannot be created: No such file or directory .*hint/, @logger.lines.first)
    end
  end

  def assert_failure_is_logged_and_polling_continues
    start(binary(IDLE_ANSWER), client: false)
    eventually("a line") { @logger.lines.any? }
    @agent.define_singleton_method(:poll) { |*| raise Diagctl::Problem.new(:other, "again") }
    eventually("the thread goes on") { @logger.lines.any?(/again/) }
    assert @poller.stop(5)
  end

  def test_polling_recovers_when_the_binary_vanishes_and_comes_back
    start(binary(IDLE_ANSWER))
    eventually("a poll") { calls("acquire").any? }
    File.rename(@binary, "#{@binary}.away")
    wake_and_wait_for(/could not be started: No such file/)
    File.rename("#{@binary}.away", @binary)
    eventually("recovery") { @logger.lines.last == "polling works again" }
  end

  def wake_and_wait_for(message)
    eventually("a line like #{message}") do
      @agent.events.add("wake")
      @poller.wake
      @logger.lines.any?(message)
    end
  end

  def test_a_logger_that_raises_does_not_stop_polling
    @log.default = Object.new
    start(binary("exit 9"))
    eventually("polls go on") { calls("acquire").size >= 3 }
  end

  # Diagctl.capture forks a dumper while the poll thread waits after a failure.
  def test_a_dumper_is_reaped_during_backoff_and_while_the_application_boots
    @config.backoff = 600
    start(binary("exit 9"))
    eventually("a line about the failure") { @logger.lines.any? }
    assert_dumper_is_reaped
    assert @poller.stop(5)
    @poller = Diagctl::Poller.new(@agent, config: @config, log: @log, ready: -> { false })
    @poller.start
    assert_dumper_is_reaped
  end

  def assert_dumper_is_reaped
    granting_binary(reports: { "heap_dump" => "snapshot" })
    assert_predicate @agent.poll, :granted?
    pid = @agent.dumper.pid
    @poller.wake
    eventually("the dumper is reaped") { @agent.dumper.nil? }
    assert_reaped(pid)
  end
end
