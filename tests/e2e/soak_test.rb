# frozen_string_literal: true

require_relative "support/e2e"

# Back-to-back captures under load, for DURATION seconds: nothing fails, and the workers do not grow. `make soak` runs it for
# ten minutes; `make test` includes the short form.
class SoakTest < E2E::Case
  DURATION = Float(ENV.fetch("DURATION", "15"))
  # The allowed growth of the median from the first to the last third. A worker's own memory varies by a few megabytes.
  RSS_SLACK = 16 << 20

  Sample = Struct.new(:rss, :descriptors, :threads)

  def test_captures_back_to_back_leave_nothing_behind
    configure(rule("again", 'timer = { every = "100ms", initial_delay = "0s" }', %w[gc_stat threads ruby smaps_rollup object_counts heap_dump],
      'select = "round_robin"'), poll_interval: "100ms", retention: "max_use = \"64MiB\"\nkeep_free = \"1%\"")
    server = puma(workers: 2)
    traffic = E2E::Traffic.new(server)
    # The first capture of each worker loads code and resizes heaps.
    wait_until("both workers were captured", tell: server.method(:log)) { (server.workers - captures.map { |c| c["pid"] }).empty? }
    workers = server.workers
    before = newest_sequence
    samples = watch(workers)
    taken = newest_sequence - before

    assert_equal [0, workers], [traffic.stop.failed, server.workers]
    assert_operator taken, :>=, (DURATION / 15).floor, "captures"
    # Otherwise the next capture would delete the oldest while they are examined.
    server.stop
    wait_until("the last dump has ended") do
      E2E::Processes.reap
      E2E::Processes.descendants.empty?
    end
    assert_nothing_went_wrong(server)
    flat = samples.map { |pid, list| assert_flat(pid, list) }
    puts "soak: #{taken} captures in #{DURATION.round} s, #{traffic.served} requests, none failed", *flat if ENV.key?("DURATION")
  end

  private

  def newest_sequence = meta(captures.first.fetch("id")).fetch("sequence")

  # Samples each worker ten times a second, often enough to catch it between two polls.
  def watch(workers)
    samples = workers.to_h { |pid| [pid, []] }
    stop_at = E2E.clock + DURATION
    while E2E.clock < stop_at
      samples.each { |pid, list| list << sample(pid) }
      sleep 0.1
    end
    samples
  end

  def sample(pid)
    Sample.new(E2E::Processes.status(pid, "VmRSS") * 1024, Dir.children("/proc/#{pid}/fd").size, E2E::Processes.status(pid, "Threads"))
  end

  def assert_flat(pid, samples)
    first, *_, last = samples.each_slice((samples.size / 3.0).ceil).to_a
    # A poll opens descriptors and starts threads only while it lasts, so the lowest figure shows what remains between polls. A
    # lower figure than usual is harmless: Ruby keeps an operating-system thread for a while after its Ruby thread has ended.
    %i[descriptors threads].each do |figure|
      assert_operator last.map(&figure).min, :<=, median(first.map(&figure)), "#{figure} of worker #{pid}: #{samples.map(&figure)}"
    end
    growth = median(last.map(&:rss)) - median(first.map(&:rss))
    assert_operator growth, :<, RSS_SLACK, "rss of worker #{pid} grew: #{samples.map(&:rss)}"
    "soak: worker #{pid}: rss #{median(first.map(&:rss)) / 1024} kB and #{format("%+d", growth / 1024)} kB in the last third, " \
      "#{last.map(&:descriptors).min} descriptors, #{last.map(&:threads).min} threads"
  end

  def median(figures) = figures.sort[figures.size / 2]

  def assert_nothing_went_wrong(server)
    events = diagctl!("status", "--explain", "--json").json.fetch("events").map { |event| event["event"] }
    assert_empty events & %w[failed aborted cleaned quarantined], "events"
    captures.each do |capture|
      # A capture that was begun when the server stopped has the reports that were finished.
      errors = meta(capture.fetch("id")).fetch("reports").filter_map { |report| report["error"] }
      assert_empty errors.grep_v(/\Athe process or its thread was ended/), capture
    end
    assert_empty server.diagctl_lines.grep_v(/stored after/)
  end
end
