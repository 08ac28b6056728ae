# frozen_string_literal: true

require_relative "support/e2e"

# Memory grows in a real Puma, and a rule captures it without a request.
class MemoryRuleTest < E2E::Case
  REPORTS = %w[jemalloc_stats malloc_info gc_stat threads ruby puma smaps smaps_rollup process fds cgroup system siblings
               jemalloc_profile cpu_profile heap_dump object_counts].freeze
  GROWTH = 60
  THRESHOLD = 85

  def setup
    super
    trigger = "memory_usage = { of = \"process\", metric = \"rss\", above = \"#{THRESHOLD}MiB\" }"
    configure(rule("growth", trigger, REPORTS, 'match = { role = "puma" }', 'for = "400ms"', 'limits = { max_count = 1, window = "1h" }'),
      "reports.cpu_profile": 'duration = "300ms"')
  end

  def test_cluster_with_preload_app = assert_growth_is_captured(workers: 2, preload: true)

  def test_cluster_without_preload_app = assert_growth_is_captured(workers: 2, preload: false)

  def test_single_mode_with_preload_app = assert_growth_is_captured(workers: 0, preload: true)

  def test_single_mode_under_jemalloc
    capture = assert_growth_is_captured(workers: 0, preload: false, env: env(LD_PRELOAD: "libjemalloc.so.2", MALLOC_CONF: "prof:true"))
    # jemalloc 5.3 writes the key `stats_print` twice, which JSON 3 rejects by default.
    stats = JSON.parse(diagctl!("fetch", "#{capture}:jemalloc_stats", "-o", "-").out, allow_duplicate_key: true)
    assert_operator stats.dig("jemalloc", "stats", "allocated"), :>, 0
  end

  private

  def assert_growth_is_captured(env: self.env, **mode)
    server = puma(env: env, initializer: 'require "stackprof"', **mode)
    traffic = E2E::Traffic.new(server)
    grown = server.get("/grow?mb=#{GROWTH}")[/\d+$/].to_i
    id = wait_for_captures(server).first.fetch("id")
    assert_equal 0, traffic.stop.failed, "requests failed while a dump ran"
    assert_operator traffic.served, :>, 0

    meta = meta(id)
    assert_equal ["growth", "puma", grown], meta.values_at("rule", "role", "pid")
    assert_includes server.workers, grown
    assert_match(/rss .* above #{THRESHOLD}/, meta.dig("trigger", "reason"))
    assert_operator meta.dig("trigger", "observed", "rss"), :>, THRESHOLD * 1024 * 1024
    assert_reports(meta, jemalloc: env.key?("LD_PRELOAD"))
    assert_costs(meta)
    assert_heap_dump(id, strings: GROWTH * 1024, parse_all: true)
    server.stop
    assert_equal 1, captures.size, "max_count = 1"
    assert_nothing_staged
    id
  end

  def assert_costs(meta)
    cost = meta.fetch("cost")
    %w[spawn_ms inline_ms fork_ms pause_ms dumper_cpu_ms duration_ms raw_bytes stored_bytes].each { |name| assert_operator cost.fetch(name), :>, 0, name }
    # The child has all of the worker's pages. Its own are those that either process has written to since the fork.
    assert_operator cost.fetch("dumper_peak_rss_bytes"), :>, GROWTH << 20
    assert_includes 1..(GROWTH << 20), cost.fetch("copied_bytes")
    # The profile took its time, and the worker served requests meanwhile.
    assert_operator cost.fetch("inline_ms"), :<, 300
  end

  # Each report has its data or an error: a process has only one allocator, and a bare chroot has no cgroup mount.
  def assert_reports(meta, jemalloc:)
    reports = meta.fetch("reports").to_h { |report| [report.fetch("name"), report] }
    assert_equal [*REPORTS, "heap_summary"].sort, reports.keys.sort
    failed = reports.select { |_, report| report["error"] }
    absent = jemalloc ? ["malloc_info"] : %w[jemalloc_stats jemalloc_profile]
    absent << "cgroup" if Dir.empty?("/sys/fs/cgroup")
    assert_equal absent.sort, failed.keys.sort, failed
    (reports.values - failed.values).each do |report|
      assert_operator report.fetch("raw_bytes"), :>, 0, report
      # A summary is made while its dump is stored.
      assert_operator report.fetch("took_ms"), :>, 0, report unless report.fetch("name") == "heap_summary"
      assert_path_exists File.join(@store, "reports", meta.fetch("id"), report.fetch("file"))
    end
  end
end
