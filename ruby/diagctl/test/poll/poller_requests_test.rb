# frozen_string_literal: true

require_relative "../polling"

# The poll thread notices every new request, and sleeps otherwise.
class PollerRequestsTest < Minitest::Test
  include Polling

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

  def test_a_request_during_the_first_poll_is_not_missed
    requests = File.join(@store, "requests")
    Dir.mkdir(requests)
    sleep Diagctl::Poller::STAMP_TICK * 2
    start(binary("sleep 0.2; #{IDLE_ANSWER}"))
    eventually("the poll has begun") { calls("acquire").any? }
    File.write(File.join(requests, "one"), "")
    eventually("a second poll", WOKEN) { calls("acquire").size >= 2 }
  end

  def test_a_request_before_the_store_is_known_is_not_missed
    requests = File.join(@store, "requests")
    Dir.mkdir(requests)
    with_dir(@store) do
      start(binary("sleep 0.2; #{IDLE_ANSWER}"), client: false)
      eventually("the poll has begun") { calls("acquire").any? }
      File.write(File.join(requests, "one"), "")
      eventually("a second poll", WOKEN) { calls("acquire").size >= 2 }
    end
  end

  # The second request leaves the stamp of the first. Tries again when this machine is too busy to poll for the first one in time.
  def test_a_second_request_within_one_tick_of_the_kernel_clock_is_not_missed
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

  # Measures looks that find nothing, which is the cost for a process when nothing is requested.
  def test_a_look_costs_one_stat_starts_no_program_and_allocates_almost_nothing
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
end
