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

  def test_a_poll_thread_that_the_application_ends_comes_back_and_says_so_once
    @config.first_poll_within = 0.01
    start(binary(IDLE_ANSWER))
    3.times do
      polls = settled_polls
      thread = Thread.list.find { |one| one.name == "diagctl poller" }
      thread.kill.join
      eventually("it polls again") { calls.size > polls }
    end
    assert_equal 1, @logger.lines.grep(/ended diagctl's poll thread/).size
    assert @poller.stop(5)
    refute(Thread.list.any? { |one| one.name == "diagctl poller" && one.alive? })
  end

  # While Ruby waits for its threads to end it calls the main thread dead, but alive again for as long as a signal handler runs.
  # Puma's master sends SIGTERM to an ending worker five times a second.
  def test_a_signal_while_the_process_ends_does_not_bring_the_poll_thread_back
    out, status = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER) })
      handling = Queue.new
      trap("TERM") do
        handling << true
        sleep 0.3
      end
      polling = Queue.new
      Diagctl::Agent.prepend(Module.new do
        define_method(:poll) do
          polling << true
          sleep
        ensure
          # The thread is being ended; it goes on only when the handler runs.
          Process.kill(:TERM, Process.pid)
          handling.pop
        end
      end)
      Diagctl.configure { |c| c.first_poll_within = 0.01 }
      Diagctl.start
      polling.pop
      exit 3
    RUBY
    assert_equal ["", 3], [out, status.exitstatus]
  end

  # On Ruby 3.1 a fork discards the kill that waits for the thread that forks, and the exit would wait for it for ever.
  def test_a_process_can_always_end_also_when_its_exit_meets_the_fork
    path = granting_binary(reports: { "heap_dump" => "snapshot" })
    grant = File.read(File.join(@store, "grant"))
    5.times do
      File.write(File.join(@store, "grant"), grant)
      _, status = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
        # Widens the moment: the kill comes after the thread is shielded and before it forks.
        at_fork = Queue.new
        memory_file = Diagctl::Libc.method(:memory_file)
        Diagctl::Libc.define_singleton_method(:memory_file) do |name|
          if name == "diagctl"
            at_fork << true
            sleep 0.01 until Thread.pending_interrupt?
          end
          memory_file.call(name)
        end
        Diagctl.configure { |c| c.first_poll_within = 0.01 }
        Diagctl.start
        at_fork.pop
        exit 3
      RUBY
      assert_equal 3, status.exitstatus
    end
  end
end
