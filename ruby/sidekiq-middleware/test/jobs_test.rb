# frozen_string_literal: true

require_relative "../../diagctl/test/helper"
$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
require "diagctl/sidekiq"

# The table of running jobs and the middleware that fills it, without Sidekiq.
class JobsTest < Minitest::Test
  # A memory reading that the test controls.
  class Memory
    attr_accessor :size

    def initialize = @size = 1000
    def bytes(_now = nil) = size
    def recent(_now) = bytes
  end

  def setup
    @logger = RecordingLogger.new
    @log = Diagctl::Log.new.tap { |log| log.default = @logger }
    @jobs = Diagctl::Sidekiq::Jobs.new(@log)
  end

  def perform(payload = { "class" => "A", "jid" => "1" }, queue = "default", &block)
    Diagctl::Sidekiq::ServerMiddleware.new(@jobs).call(nil, payload, queue, &block)
  end

  def test_a_job_is_listed_while_it_runs_and_its_value_is_returned
    value = perform("class" => "A", "jid" => "1") do
      assert_equal [["A", "1", "default", Thread.current]], @jobs.running.map { |job| job.to_a.first(4) }
      :value
    end
    assert_equal [:value, 0, 1], [value, @jobs.busy, @jobs.tallies["A"].count]
  end

  def test_everything_a_job_raises_or_throws_passes_and_leaves_nothing_behind
    [RuntimeError.new("a"), Interrupt.new, SystemExit.new(3), NoMemoryError.new].each do |error|
      raised = assert_raises(error.class) { perform { raise error } }
      assert_same error, raised
      assert_nil raised.cause
    end
    assert_equal 7, catch(:out) { perform { throw :out, 7 } }
    thread = Thread.new { perform { sleep } }
    Thread.pass until thread.status == "sleep" && @jobs.busy == 1
    thread.kill.join
    assert_equal [0, 6], [@jobs.busy, @jobs.tallies["A"].count]
  end

  def test_a_poll_names_the_classes_that_run_with_their_number
    assert_empty @jobs.running_by_class
    perform { perform { perform("class" => "Not a name") { assert_equal({ "sidekiq.running.A" => 2 }, @jobs.running_by_class) } } }
    20.times { |i| @jobs.start({ "class" => "C#{i}", "jid" => "1" }, "default") }
    assert_equal 10, @jobs.running_by_class.size
  end

  def test_a_nested_job_and_its_outer_job_are_both_listed
    perform("class" => "Outer") do
      perform("class" => "Inner") { assert_equal %w[Outer Inner], @jobs.running.map(&:name) }
      assert_equal %w[Outer], @jobs.running.map(&:name)
    end
    assert_equal 0, @jobs.busy
  end

  def test_a_wrapped_job_is_listed_under_its_own_class
    perform("class" => "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper", "wrapped" => "InvoiceJob") {}
    assert_equal ["InvoiceJob"], @jobs.tallies.keys
  end

  def test_the_table_by_class_is_bounded
    (Diagctl::Sidekiq::Jobs::CLASSES + 50).times { |i| perform("class" => "Job#{i}") {} }
    perform("class" => "x" * 10_000) {}
    assert_equal Diagctl::Sidekiq::Jobs::CLASSES + 1, @jobs.tallies.size
    assert_equal 51, @jobs.tallies.fetch("(other)").count
    assert(@jobs.tallies.keys.all? { |name| name.length <= Diagctl::Sidekiq::Jobs::NAME_LENGTH })
  end

  def test_growth_covers_running_jobs_and_those_finished_since_the_last_call
    memory = Memory.new
    assert_nil @jobs.growth
    @jobs.measure { memory }
    assert_equal 0, @jobs.growth
    perform("class" => "A") do
      memory.size += 300
      assert_equal [300, 300], [@jobs.growth, @jobs.growth]
      memory.size += 200
    end
    perform("class" => "B") { memory.size -= 400 }
    assert_equal [500, 0], [@jobs.growth, @jobs.growth]
    perform("class" => "A") { memory.size += 100 }
    assert_equal [600, 500, -400, -400], @jobs.tallies.values_at("A", "B").flat_map { |tally| [tally.grown, tally.largest] }
  end

  # The growth of the process counts for every job that runs meanwhile.
  def test_the_report_blames_no_job_for_growth_during_several
    memory = Memory.new
    @jobs.measure { memory }
    grow = ->(bytes) { memory.size += bytes }
    perform("class" => "Bloat", "jid" => "b") do
      perform("class" => "Innocent", "jid" => "i") do
        grow.(1000)
        assert_nil grew_most, "both jobs ran while the process grew"
      end
      grow.(10_000)
      assert_equal({ class: "Bloat", jid: "b", running: true, bytes: 11_000 }, grew_most)
      perform("class" => "Bloat", "jid" => "c") do
        grow.(200_000)
        assert_equal({ class: "Bloat", running: true, bytes: 211_000 }, grew_most, "one class, but not one job")
      end
    end
  end

  def grew_most
    server = Struct.new(:version, :name, :queues, :capsules).new("7", "tag", [], {})
    io = StringIO.new
    Diagctl::Sidekiq::Report.new(server, @jobs).call(io, {})
    JSON.parse(io.string, symbolize_names: true)[:grew_most]
  end

  def test_an_invalid_payload_is_logged_once_and_the_job_runs
    2.times { assert_equal :ran, perform(nil) { :ran } }
    assert_equal 1, @logger.lines.size
    assert_match(/a job could not be recorded: NoMethodError/, @logger.lines.first)
  end

  # A timeout around the middleware may strike at any of its instructions.
  def test_an_exception_from_another_thread_inside_the_middleware_passes
    error = RuntimeError.new("a timeout")
    payload = Object.new
    payload.define_singleton_method(:[]) { |_| raise error }
    assert_same error, assert_raises(RuntimeError) { perform(payload) { flunk } }
    memory = Memory.new
    @jobs.measure { memory }
    raised = assert_raises(RuntimeError) { perform { memory.define_singleton_method(:size) { raise error } } }
    assert_same error, raised
    assert_equal [0, []], [@jobs.busy, @logger.lines]
  end

  def test_unreadable_memory_is_logged_once_and_the_job_runs
    memory = Memory.new
    @jobs.measure { memory }
    def memory.size = raise(Errno::EACCES, "/proc/self/statm")
    2.times { assert_equal :ran, perform { :ran } }
    assert_equal [0, nil], [@jobs.busy, @jobs.growth]
    assert_equal 1, @logger.lines.size
  end

  def test_jobs_of_many_threads_are_all_counted_and_leave_nothing_behind
    threads = Array.new(8) { |i| Thread.new { 500.times { |n| perform("class" => "C#{(i + n) % 3}") { Thread.pass } } } }
    100.times { [@jobs.running, @jobs.tallies] }
    threads.each(&:join)
    assert_equal [0, 4000], [@jobs.busy, @jobs.tallies.values.sum(&:count)]
  end

  def test_without_proc_the_reason_is_logged_and_jobs_run
    @jobs.measure { raise Errno::ENOENT, "/proc/self/statm" }
    assert_equal [:ran, nil], [perform { :ran }, @jobs.growth]
    assert_match(%r{memory growth by job is not measured: .*/proc/self/statm}, @logger.lines.first)
  end

  def test_resident_memory_matches_the_kernels_number
    rss = Diagctl::Sidekiq::Rss.new
    assert_in_delta resident, rss.bytes, 8 << 20
    kept = "x" * (64 << 20)
    assert_in_delta resident, rss.bytes, 8 << 20, kept.bytesize
  end

  def test_a_reading_is_reused_only_for_a_job_that_begins_within_milliseconds
    rss = Diagctl::Sidekiq::Rss.new
    at_end = rss.bytes(100.0)
    kept = "x" * (64 << 20)
    assert_equal at_end, rss.recent(100.004)
    assert_in_delta resident, rss.recent(100.006), 8 << 20, kept.bytesize
  end

  # The kernel's number from another file.
  def resident = File.read("/proc/self/status")[/^VmRSS:\s*(\d+)/, 1].to_i * 1024
end
