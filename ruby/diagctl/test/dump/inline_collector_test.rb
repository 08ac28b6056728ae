# frozen_string_literal: true

require_relative "../capturing"

# Inline reports, made in the worker.
class InlineCollectorTest < Minitest::Test
  include Capturing

  def test_a_report_that_fails_is_named_and_the_others_are_stored
    @config.report(:raises) { |_| raise "secret\nline" }
    @config.report(:empty) { |_| }
    capture(reports: { "raises" => "inline", "empty" => "inline", "nope" => "inline", "puma" => "inline", "threads" => "inline" })
    line = finalize_line
    assert_includes line, "--failed=raises=report raises raised RuntimeError: secret line"
    assert_includes line, "--failed=empty=the report is empty"
    assert_includes line, "--failed=nope=not available in this process"
    assert_includes line, "--failed=puma=not available in this process"
    assert_equal ["threads"], calls("put").map { |call| call.split.last }
  end

  def test_a_report_that_hangs_does_not_keep_the_lease
    @config.callback_timeout = 0.2
    @config.report(:hangs) { |_| sleep }
    capture(reports: { "hangs" => "inline" })
    assert_includes finalize_line, "--failed=hangs=report hangs did not return within 0.2 s"
    assert lease_free?
  ensure
    Diagctl::Callback.running.delete("report hangs")&.kill
  end

  def test_no_inline_report_is_started_after_the_budget
    @config.inline_budget = 0.05
    @config.report(:slow) { |io| compute(0.1) && io.write("x") }
    capture(reports: { "slow" => "inline", "threads" => "inline" })
    assert_includes finalize_line, "--failed=threads=not started: earlier inline reports took more than 0.05 s of CPU time"
    assert_equal "x", put("slow")
  end

  # The wait for the GVL is the time of the application's threads, not that of the reports.
  def test_the_time_of_other_threads_is_not_counted
    @config.inline_budget = 0.5
    stop = false
    busy = Array.new(2) { Thread.new { 1 + 1 until stop } }
    @config.report(:slow) { |io| sleep(0.7) && io.write("x") }
    capture(reports: { "slow" => "inline", "threads" => "inline", "gc_stat" => "inline" })
    refute_match(/--failed/, finalize_line)
  ensure
    stop = true
    busy.each(&:join)
  end

  def test_a_report_is_bounded_in_bytes_while_it_writes
    written = 0
    @config.report(:endless) { |io| loop { io.puts("x" * 1_000_000).nil? && written += 1 } }
    capture(reports: { "endless" => "inline", "threads" => "inline" })
    assert_includes finalize_line, "--failed=endless=it wrote more than 16777216 bytes (max_size)"
    assert_equal 16, written
    assert_match(/threads of process/, put("threads"))
  end

  # A capture without a snapshot takes two programs, whatever the number of reports. `acquire` is the other one.
  def test_all_reports_and_their_errors_take_one_program
    @config.report(:raises) { |_| raise "no" }
    @agent = agent(granting_binary(reports: { "gc_stat" => "inline", "threads" => "inline", "ruby" => "inline", "raises" => "inline" }))
    started = []
    original = Diagctl::PosixSpawn.method(:call)
    replacing(Diagctl::PosixSpawn, :call, ->(argv, *rest) { started << argv[3] && original.call(argv, *rest) }) { @agent.poll }
    assert_equal %w[acquire finalize], started
    assert_equal %w[gc_stat threads ruby], calls("put").map { |call| call.split.last }
  end

  def compute(seconds)
    limit = Diagctl::Clock.thread_cpu + seconds
    true until Diagctl::Clock.thread_cpu > limit
    true
  end

  def test_a_cpu_profile_is_made_even_after_the_budget
    @config.inline_budget = 0.01
    @config.report(:slow) { |io| compute(0.05) && io.write("x") }
    collector = Diagctl::InlineCollector.new(Diagctl::Reports.new(@config), budget: @config.inline_budget)
    granted = %w[slow threads cpu_profile].map { |name| Diagctl::Grant::GrantedReport.new(name, "inline", { "duration" => "no" }) }
    collector.collect(granted)
    assert_match(/not started/, collector.failed.fetch("threads"))
    assert_match(/duration "no" is not/, collector.failed.fetch("cpu_profile"))
    assert_operator collector.took.fetch("slow"), :>=, 50
  end
end
