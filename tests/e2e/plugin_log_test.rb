# frozen_string_literal: true

require_relative "support/e2e"

# With the plugin, Puma's log contains nothing new except lines that begin with [diagctl]: no warning from Puma about threads,
# hooks or options, and none from Ruby.
class PluginLogTest < E2E::Case
  EVERY = %w[gc_stat threads ruby puma malloc_info jemalloc_stats smaps process object_counts heap_dump].freeze
  # Some reports may be missing here: malloc_info or jemalloc_stats, depending on the allocator, and puma before the first
  # request, up to Puma 7.0.
  DONE_OR_IN_PART = [0, 5].freeze

  def test_cluster_with_preload_app = assert_no_other_lines(workers: 2, preload: true)

  def test_cluster_without_preload_app = assert_no_other_lines(workers: 2, preload: false)

  def test_cluster_with_fork_worker = assert_no_other_lines(workers: 2, preload: false, first: "fork_worker")

  def test_single_mode = assert_no_other_lines(workers: 0)

  # Everything that a capture loads or calls, in a Ruby that tells all it minds.
  def test_ruby_warns_of_nothing_that_it_does_not_warn_of_without
    [{ workers: 0 }, { workers: 2, preload: true }].each do |mode|
      without, with = [false, true].map do |plugin|
        server = puma(env: env(RUBYOPT: "-w -W:deprecated -W:experimental"), initializer: "def twice = 1\ndef twice = 2", plugin: plugin, **mode)
        capture_everything if plugin
        server.stop
        lines(server).grep(/warning/)
      end
      refute_empty without.grep(/method redefined; discarding old twice/), "this Ruby warns of nothing"
      assert_empty with - without
    end
  end

  private

  def assert_no_other_lines(**mode)
    without = lines(without_plugin(**mode))
    server = puma(**mode)
    capture_everything
    wait_until("the log tells of it", tell: server.method(:log)) { server.diagctl_lines.any? }
    server.stop
    with = lines(server)
    own = with.grep(/\[diagctl\]/)
    assert_equal without, with - own
    own.each { |line| assert_match(/\[diagctl\] capture \S+ \(on_demand\) stored/, line) }
  end

  # Puma 6.6 in single mode that is stopped at once may find itself in a deadlock: its main thread waits for the server's thread, which waits
  # for requests. With the plugin there is a thread that only sleeps.
  def without_plugin(**mode)
    servers = Enumerator.produce { puma(plugin: false, **mode).tap(&:stop) }
    servers.lazy.take(3).find { |server| !server.log.include?("No live threads left. Deadlock?") } || flunk("Puma ends in a deadlock each time")
  end

  def capture_everything
    result = diagctl("request", *EVERY, "--reason", "all that it can do", "--wait")
    assert_includes DONE_OR_IN_PART, result.status, result
  end

  # Returns the log without parts that differ between starts, sorted because workers log in any order.
  def lines(server)
    server.log.gsub(/\d+/, "N").lines(chomp: true).map(&:rstrip).sort
  end
end
