# frozen_string_literal: true

require_relative "helper"

class PollerTest < Minitest::Test
  include Sandbox

  # A poll that comes within this time was brought forward: `retry_after` of IDLE is 30 s.
  WOKEN = 20

  def start(path, client: true)
    @agent = agent(path)
    @agent.instance_variable_set(:@client, nil) unless client
    @poller = Diagctl::Poller.new(@agent, config: @config, log: @log)
    @poller.start
  end

  def with_dir(dir)
    before = ENV.fetch("DIAGCTL_DIR", nil)
    ENV["DIAGCTL_DIR"] = dir
    yield
  ensure
    ENV["DIAGCTL_DIR"] = before
  end

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

  def test_what_the_operator_should_mend_is_told_once_while_polling_goes_on
    answer = JSON.generate(Sandbox::IDLE.merge("retry_after" => 0.05, "warning" => "rules[0].name: missing"))
    start(binary("echo '#{answer}'; exit 10"))
    eventually("three polls") { calls("acquire").size >= 3 }
    assert_equal ["rules[0].name: missing"], @logger.lines
  end

  def test_it_sleeps_until_requests_change
    Dir.mkdir(File.join(@store, "requests"))
    sleep Diagctl::Poller::STAMP_TICK * 2
    start(binary(IDLE_ANSWER))
    eventually("a poll") { calls("acquire").any? }
    sleep 0.4
    assert_equal 1, calls("acquire").size, "retry_after is 30 s and nothing happened"
    File.write(File.join(@store, "requests", "one"), "")
    eventually("a poll for the request", WOKEN) { calls("acquire").size >= 2 }
    sleep 0.3
    assert_includes 2..3, calls("acquire").size, "one more where the stamp was too fresh, and then it sleeps"
  end

  # Over looks that find nothing: what a process pays that nobody wants anything of.
  def test_a_look_is_one_stat_that_spawns_nothing_and_allocates_next_to_nothing
    Dir.mkdir(File.join(@store, "requests"))
    start(binary("echo '#{JSON.generate(IDLE.merge("poll_interval" => 0.02))}'; exit 10"))
    polls = settled_polls
    stats = 0
    stat = File.method(:mtime)
    counting = lambda do |path|
      stats += 1
      stat.call(path)
    end
    allocated = nil
    replacing(File, :mtime, counting) do
      before = GC.stat(:total_allocated_objects)
      sleep 1
      allocated = GC.stat(:total_allocated_objects) - before
    end
    assert_includes 5..60, stats
    assert_operator allocated.fdiv(stats), :<, 6, "objects a look"
    assert_equal polls, calls.size
  end

  # The first polls come soon after each other: they cannot tell yet whether requests/ has changed.
  def settled_polls
    eventually("no poll for half a second") do
      before = calls.size
      sleep 0.5
      before if before.positive? && before == calls.size
    end
  end

  def test_it_spawns_no_more_often_than_retry_after_asks
    started = Diagctl::Clock.now
    start(binary("echo '#{JSON.generate(IDLE.merge("retry_after" => 0.3, "poll_interval" => 0.02))}'; exit 10"))
    eventually("some polls") { calls.size >= 5 }
    assert_operator Diagctl::Clock.now - started, :>=, 4 * 0.3
  end

  def test_a_request_that_comes_while_the_first_answer_is_being_made_is_not_slept_through
    requests = File.join(@store, "requests")
    Dir.mkdir(requests)
    sleep Diagctl::Poller::STAMP_TICK * 2
    start(binary("sleep 0.2; #{IDLE_ANSWER}"))
    eventually("the poll has begun") { calls("acquire").any? }
    File.write(File.join(requests, "one"), "")
    eventually("a second poll", WOKEN) { calls("acquire").size >= 2 }
  end

  def test_nor_is_one_that_comes_before_the_directory_is_known
    requests = File.join(@store, "requests")
    Dir.mkdir(requests)
    with_dir(@store) do
      start(binary("sleep 0.2; #{IDLE_ANSWER}"), client: false)
      eventually("the poll has begun") { calls("acquire").any? }
      File.write(File.join(requests, "one"), "")
      eventually("a second poll", WOKEN) { calls("acquire").size >= 2 }
    end
  end

  # The second one leaves the stamp of the first. Where this machine is too busy to poll for the first in time, once more.
  def test_nor_is_a_second_one_within_one_tick_of_the_kernels_clock
    requests = File.join(@store, "requests")
    Dir.mkdir(requests)
    answer = JSON.generate(Sandbox::IDLE.merge("poll_interval" => Diagctl::Wait::SHORTEST))
    start(binary("echo '#{answer}'; exit 10"))
    heard = 5.times.any? do |round|
      sleep 0.3
      before = calls("acquire").size
      File.write(File.join(requests, "first-#{round}"), "")
      stamp = File.stat(requests).mtime
      eventually("a poll for the first", WOKEN) { calls("acquire").size > before }
      File.write(File.join(requests, "second-#{round}"), "")
      File.utime(stamp, stamp, requests)
      sleep 0.3
      assert_operator calls("acquire").size, :<=, before + 3, "and then it sleeps"
      calls("acquire").size >= before + 2
    end
    assert heard
  end

  def test_an_event_is_handed_over_once_and_brings_the_poll_forward
    start(binary(IDLE_ANSWER))
    eventually("a poll") { calls("acquire").any? }
    @agent.events.add("deploy")
    @poller.wake
    eventually("a poll with the event", WOKEN) { calls("acquire").any?(/--event=deploy/) }
    @agent.events.add("other")
    @poller.wake
    eventually("a poll with the other event", WOKEN) { calls("acquire").any?(/--event=other/) }
    assert_equal 1, calls("acquire").count { |line| line.include?("--event=deploy") }
  end

  # Somebody may name one with every request.
  def test_events_without_end_cost_one_poll_in_a_second
    start(binary(IDLE_ANSWER))
    settled_polls
    before = calls("acquire").size
    started = Diagctl::Clock.now
    while Diagctl::Clock.now < started + 2
      @agent.events.add("slow_request")
      @poller.wake
      sleep 0.005
    end
    elapsed = Diagctl::Clock.now - started
    assert_includes 1..(elapsed / Diagctl::Wait::EVENT_INTERVAL + 1), calls("acquire").size - before
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

  # A killer that calls it has a worker to end.
  def test_a_capture_does_not_wait_for_a_binary_that_hangs_as_long_as_the_poll_thread_does
    path = binary("exec sleep 60")
    [@store, nil].each do |dir|
      out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path, "DIAGCTL_DIR" => dir })
        Diagctl.configure do |c|
          c.capture_timeout = 0.3
          c.first_poll_within = 1e6
        end
        Diagctl.start
        result = Diagctl.capture(event: :worker_memory_limit)
        puts result.verdict, result.reason
      RUBY
      assert_match(/\Afailed\n`diagctl .*` did not end within 0.3 s and was killed/, out)
    end
  end

  def assert_looked_after
    granting_binary(reports: { "heap_dump" => "snapshot" })
    assert_predicate @agent.poll, :granted?
    pid = @agent.child.pid
    @poller.wake
    eventually("the dumper is reaped") { @agent.child.nil? }
    assert_reaped(pid)
  end

  # Between the look at what waits and the wait: the wake-up finds nobody asleep.
  def test_an_event_that_comes_just_before_the_wait_is_not_slept_through
    path = binary("echo '#{JSON.generate(IDLE.merge("poll_interval" => 30))}'; exit 10")
    @agent = agent(path)
    poller = @poller = Diagctl::Poller.new(@agent, config: @config, log: @log)
    named = false
    @agent.events.define_singleton_method(:any?) do
      super().tap do |any|
        next if any || named

        named = true
        add("deploy")
        poller.wake
      end
    end
    @poller.start
    eventually("a poll with the event", WOKEN) { calls("acquire").any?(/--event=deploy/) }
  end

  # diagctl remembers it; to name it again at once would make the poll thread spin while another process dumps.
  def test_an_event_is_handed_over_once_though_the_lease_is_busy
    busy = Sandbox::IDLE.merge("verdict" => "busy")
    start(binary("echo '#{JSON.generate(busy)}'; exit 10"))
    @agent.events.add("deploy")
    @poller.wake
    eventually("a poll with the event") { calls("acquire").any?(/--event=deploy/) }
    polls = calls("acquire").size
    eventually("an answer") { !@agent.busy? && !@agent.events.any? }
    @agent.poll
    assert_equal 1, calls("acquire").count { |line| line.include?("--event=deploy") }
    assert_operator calls("acquire").size, :<=, polls + 3
  end

  def test_an_event_survives_a_poll_that_failed
    start(binary('[ -e "$dir/well" ] || exit 9; ' + IDLE_ANSWER))
    @agent.events.add("deploy")
    eventually("two failed polls") { calls("acquire").count { |line| line.include?("--event=deploy") } >= 2 }
    File.write(File.join(@store, "well"), "")
    eventually("recovery") { @logger.lines.last == "polling works again" }
    refute_predicate @agent.events, :any?
  end

  # Puma without `preload_app!` loads the application after the hook that starts the thread.
  def test_what_the_application_configures_while_it_boots_counts
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

  def test_a_logger_that_raises_is_the_hosts_business_only
    @log.default = Object.new
    start(binary("exit 9"))
    eventually("polls go on") { calls("acquire").size >= 3 }
  end

  def test_stop_ends_the_thread_in_the_middle_of_a_wait
    start(binary(IDLE_ANSWER))
    eventually("a poll") { calls("acquire").any? }
    assert @poller.stop(WOKEN)
  end
end
