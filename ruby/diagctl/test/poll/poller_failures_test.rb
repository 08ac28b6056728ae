# frozen_string_literal: true

require_relative "../polling"

# Every failure of a poll is logged once, and polling goes on.
class PollerFailuresTest < Minitest::Test
  include Polling

  def test_every_failure_is_told_once_backed_off_from_and_survived
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

  # The bytes of a path are anybody's. Such a line once ended the thread, and nobody was told.
  def test_a_failure_that_names_a_path_which_is_no_utf8_is_told_and_survived
    ["\xE9", "\xE9".b, "\u00E9".b].each do |component|
      @logger.lines.clear
      with_dir(File.join(@dir, "none".b, component, "store")) { tried_and_told }
      assert_match(/\Athe store .* cannot be created: No such file or directory .*hint/, @logger.lines.first)
    end
  end

  def tried_and_told
    start(binary(IDLE_ANSWER), client: false)
    eventually("a line") { @logger.lines.any? }
    @agent.define_singleton_method(:poll) { |*| raise Diagctl::Problem.new(:other, "again") }
    eventually("the thread goes on") { @logger.lines.any?(/again/) }
    assert @poller.stop(5)
  end

  def test_the_binary_vanishes_and_comes_back
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

  def test_a_logger_that_raises_is_the_hosts_business_only
    @log.default = Object.new
    start(binary("exit 9"))
    eventually("polls go on") { calls("acquire").size >= 3 }
  end

  # Somebody calls Diagctl.capture while the poll thread waits after a failure.
  def test_a_dumper_is_looked_after_though_polls_failed_or_wait_for_the_host
    @config.backoff = 600
    start(binary("exit 9"))
    eventually("a line about the failure") { @logger.lines.any? }
    assert_looked_after
    assert @poller.stop(5)
    @poller = Diagctl::Poller.new(@agent, config: @config, log: @log, ready: -> { false })
    @poller.start
    assert_looked_after
  end

  def assert_looked_after
    granting_binary(reports: { "heap_dump" => "snapshot" })
    assert_predicate @agent.poll, :granted?
    pid = @agent.dumper.pid
    @poller.wake
    eventually("the dumper is reaped") { @agent.dumper.nil? }
    assert_reaped(pid)
  end
end
