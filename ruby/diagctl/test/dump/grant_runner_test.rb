# frozen_string_literal: true

require_relative "../capturing"

# A grant is carried out, or returned.
class GrantRunnerTest < Minitest::Test
  include Capturing

  def test_a_capture_without_snapshot_does_not_fork
    @config.report(:cache) { |io| io.write("42 entries") }
    result = capture(reports: { "gc_stat" => "inline", "threads" => "inline", "ruby" => "inline", "cache" => "inline" })
    assert_equal ["granted", CAPTURE], [result.verdict, result.capture]
    assert_nil @agent.dumper
    assert_equal Process.pid, JSON.parse(put("ruby")).fetch("pid")
    assert_equal "42 entries", put("cache")
    assert_match(/--set=cost.pause_ms=[\d.]+ .*--set=versions.ruby=#{RUBY_VERSION}/, finalize_line)
    refute_match(/fork_ms|--failed/, finalize_line)
    assert lease_free?
    assert_match(/\Acapture #{CAPTURE} \(r\) stored after/, @logger.lines.last)
  end

  # Developers ask for the version of the application first.
  def test_labels_of_the_application_are_values_or_called_at_each_capture
    version = "1"
    @config.label(:git_sha, "2f1c9e7")
    @config.label(:app_version) { version }
    @config.label(:empty, "")
    @config.label(:broken) { raise "no version" }
    version = "2"
    capture(reports: { "gc_stat" => "inline" })
    assert_match(/--set=git_sha=2f1c9e7 --set=app_version=2\z/, finalize_line)
  end

  # This process still holds the lease. With another description of the file, `abort` would wait for the lease and then refuse.
  def test_a_finalize_that_dies_is_reported_to_the_store_under_the_same_lease
    capture(reports: { "threads" => "inline" },
      finalize: 'case "$*" in *--broken-off*) flock -n 3 && touch "$dir/held"; exit 1;; *) kill -KILL $$;; esac')
    why = "`diagctl finalize` was killed by SIGKILL"
    said, last = calls("finalize").last, @logger.lines.last
    assert_match(/\Afinalize --lease-fd=3 #{CAPTURE} --records --broken-off --why=#{why} after [\d.]+ s\z/, said)
    assert_path_exists File.join(@store, "held")
    assert_match(/\Acapture #{CAPTURE} \(r\): #{why} after/, last)
    assert lease_free?
  end

  # When an application ignores SIGCHLD, the kernel reaps its children, and nobody learns how a program ended.
  def test_a_stored_report_is_not_called_failed_when_the_application_takes_the_status
    before = Signal.trap("CHLD", "IGNORE")
    reports = { "threads" => "inline", "object_counts" => "snapshot" }
    capture(reports: reports, snapshot: "in_process", finalize: "echo '{\"id\":\"#{CAPTURE}\"}'")
    assert_equal reports.keys, calls("put").map { |call| call.split.last }
    refute_match(/--failed/, finalize_line)
    assert_empty calls("abort")
    assert_match(/\Acapture #{CAPTURE} \(r\) stored after/, @logger.lines.last)
  ensure
    Signal.trap("CHLD", before)
  end

  def test_a_failed_fork_returns_the_grant
    error = replacing(Diagctl::ForkGuard, :raw_fork, -> { raise Errno::EAGAIN, "fork(2)" }) do
      assert_raises(Diagctl::Problem) { capture(reports: { "heap_dump" => "snapshot" }) }
    end
    assert_match(/capture #{CAPTURE} was returned.*fork/, error.message)
    assert_match(/\Aabort --lease-fd=3 #{CAPTURE} --reason=the grant could not be used: Errno::EAGAIN/, calls("abort").first)
    assert lease_free?
  end

  def test_a_thread_killed_while_it_forks_leaves_no_unreaped_dumper
    fork_for_real = Diagctl::ForkGuard.method(:raw_fork)
    forked = false
    worker = Process.pid
    slowly = lambda do
      next fork_for_real.call unless Process.pid == worker

      pid = fork_for_real.call
      forked = !pid.zero?
      sleep 0.01 until pid.zero? || Thread.pending_interrupt?
      pid
    end
    replacing(Diagctl::ForkGuard, :raw_fork, slowly) do
      thread = Thread.new { capture(reports: { "heap_dump" => "snapshot" }) }
      eventually("forked") { forked }
      thread.kill.join
    end
    refute_nil @agent.dumper
    finalize_line
  end

  # The finished reports are published by a program that nobody waits for.
  def test_a_capture_whose_thread_is_ended_is_finished_by_a_program_of_its_own
    thread = Thread.new do
      capture(reports: { "threads" => "inline", "gc_stat" => "inline" },
        finalize: 'case "$*" in *--broken-off*) flock -n 3 && touch "$dir/held";; *) exec sleep 60;; esac')
    end
    eventually("finalize runs") { calls("finalize").any? }
    File.delete(put_path("threads"))
    thread.kill.join
    line = eventually("the other one") { calls("finalize")[1] }
    assert_match(/--broken-off .*--why=the process or its thread was ended during the capture/, line)
    eventually("it holds the lease until it is done") { File.exist?(File.join(@store, "held")) && lease_free? }
    assert_match(/\d+ threads of process/, put("threads"))
  end

  # An application that serves with fibers (falcon, async) may capture in one. The dumper inherits the scheduler, which would handle
  # each wait and run the application's other fibers.
  class Scheduler
    def initialize
      @sleepers = {}
    end

    def close
      until @sleepers.empty?
        fiber, wake_at = @sleepers.min_by(&:last)
        @sleepers.delete(fiber)
        Thread.new { sleep [wake_at - Diagctl::Clock.now, 0].max }.join
        fiber.resume
      end
    end

    def kernel_sleep(seconds = 0.01)
      @sleepers[Fiber.current] = Diagctl::Clock.now + seconds
      Fiber.yield
      true
    end

    def io_wait(_io, events, _timeout)
      kernel_sleep
      events
    end

    def block(_blocker, timeout = nil)
      kernel_sleep(timeout || 0.01)
    end

    def unblock(_blocker, _fiber); end

    def fiber(&block)
      Fiber.new(blocking: false, &block).tap(&:resume)
    end
  end

  def test_a_capture_in_a_fiber_runs_no_other_fiber_in_the_dumper
    ran_in = File.join(@dir, "ran_in")
    Thread.new do
      Fiber.set_scheduler(Scheduler.new)
      2.times { Fiber.schedule { 20.times { sleep(0.01) && File.write(ran_in, "#{Process.pid} ", mode: "a") } } }
      Fiber.schedule { capture(reports: { "heap_dump" => "snapshot" }) }
    end.join
    refute_match(/--failed/, finalize_line)
    assert_operator each_line_of_the_dump.count, :>, 1000
    assert_equal [Process.pid.to_s], File.read(ran_in).split.uniq
  end
end
