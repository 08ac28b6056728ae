# frozen_string_literal: true

require_relative "../polling"

# Events bring a poll forward and are handed over once.
class PollerEventsTest < Minitest::Test
  include Polling

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

  # An application may name an event on every request.
  def test_endless_events_cost_one_poll_per_second
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

  # The event comes between the look at the pending events and the wait, so the wake-up finds nobody asleep.
  def test_an_event_just_before_the_wait_is_not_missed
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

  # diagctl has recorded the event. Naming it again at once would make the poll thread spin while another process dumps.
  def test_an_event_is_handed_over_once_even_when_the_lease_is_busy
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
end
