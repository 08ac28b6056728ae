# frozen_string_literal: true

require_relative "support/e2e"

# Jobs in a real Sidekiq on a real Redis: captures name the job, and the jobs are not affected.
class SidekiqJobsTest < E2E::Case
  GROWTH = 80
  SECRET = "swordfish-0x5ec2e7"
  # Every kind of report except the heap dump, which contains all strings of the process.
  REPORTS = %w[sidekiq threads ruby gc_stat malloc_info process smaps smaps_rollup fds cgroup system siblings].freeze

  def setup
    super
    @release = File.join(@root, "release")
  end

  def test_a_memory_rule_names_the_running_job_but_not_its_arguments
    trigger = "memory_growth = { baseline = \"boot\", diff = \"#{GROWTH / 2}MiB\" }"
    configure(rule("bloat", trigger, REPORTS + %w[object_counts heap_dump], 'match = { role = "sidekiq" }', 'limits = { max_count = 1, window = "1h" }'))
    server = sidekiq(install: "job_rss: true")
    wait_for_first_poll(server)
    jid = redis.push("Bloat", GROWTH, @release, SECRET, wrapped: "Reports::Monthly")
    id = wait_for_captures(server).first.fetch("id")
    File.write(@release, "")

    meta = meta(id)
    assert_equal ["bloat", "sidekiq", "sidekiq", server.pid], meta.values_at("rule", "role", "worker", "pid")
    assert_equal E2E::SidekiqServer.version, meta.dig("versions", "sidekiq")
    told = JSON.parse(report(id, "sidekiq"))
    assert_equal [["Reports::Monthly", jid, "default"]], told["jobs"].map { |job| job.values_at("class", "jid", "queue") }
    assert_equal [1, 2, %w[default]], told.values_at("busy", "concurrency", "queues")
    assert_operator told["grew_most"]["bytes"], :>, GROWTH << 19
    assert_equal [jid, true], told["grew_most"].values_at("jid", "running")
    assert_includes report(id, "threads"), "tid=#{told['jobs'].first['tid']} "
    assert_heap_dump(id, strings: GROWTH * 1024)
    assert_secret_is_nowhere(id)
    assert_only_told(server, /stored after/)
  end

  def test_the_growth_of_a_finished_job_is_a_gauge
    configure(rule("grew", "gauge = { name = \"sidekiq.job_rss_growth\", above = #{GROWTH << 19} }", %w[sidekiq], 'limits = { cooldown = "1h" }'))
    server = sidekiq(install: "job_rss: true, queue_latency: true")
    wait_for_first_poll(server)
    File.write(@release, "")
    redis.push("Bloat", GROWTH, @release)
    id = wait_for_captures(server).first.fetch("id")
    told = JSON.parse(report(id, "sidekiq"))
    bloat = told["classes"].find { |entry| entry["class"] == "Bloat" } || told["jobs"].find { |job| job["class"] == "Bloat" }
    assert_operator bloat["rss_growth_bytes"], :>, GROWTH << 19
    samples = diagctl!("samples").out
    assert_match(/sidekiq.queue_latency/, samples)
    assert_match(/sidekiq.busy/, samples)
  end

  def test_a_full_process_is_a_gauge
    configure(rule("full", 'gauge = { name = "sidekiq.busy", above = 1 }', %w[sidekiq], 'limits = { cooldown = "1h" }'))
    server = sidekiq
    redis.push("Patient", @release)
    wait_until("one job runs") { File.exist?("#{@release}.begun") }
    second = redis.push("Patient", "#{@release}2")
    id = wait_for_captures(server).first.fetch("id")
    jobs = JSON.parse(report(id, "sidekiq"))["jobs"]
    assert_equal [2, second], [jobs.size, jobs.last["jid"]]
    refute jobs.first.key?("rss_growth_bytes"), "nobody asked for it"
  end

  def test_errors_and_retries_are_unchanged
    with = { server: "" }
    without = { server: "", head: 'ENV["DIAGCTL_ENABLED"] = "0"' }
    seen = [with, without].map do |mode|
      redis.call("FLUSHALL")
      server = sidekiq(**mode)
      jid = redis.push("Boom", "it hurts")
      dead = redis.push("Boom", "for good", retry: 0)
      gone = redis.push("Boom", "and is forgotten", retry: false)
      retried = wait_until("a retry", tell: server.method(:log)) { redis.retries.first }
      wait_until("the dead one") { redis.call("ZCARD", "dead") == 1 }
      wait_until("nothing is left in the queue") { redis.waiting.empty? }
      server.stop
      assert_equal [jid, dead], [retried["jid"], JSON.parse(redis.call("ZRANGE", "dead", 0, -1).first)["jid"]]
      refute_includes redis.retries.map { |job| job["jid"] }, gone
      retried.slice("class", "queue", "args", "error_class", "error_message", "retry_count", "retry").merge("keys" => retried.keys.sort)
    end
    assert_equal(*seen)
    assert_equal ["Boom::Odd", "it hurts"], seen.first.values_at("error_class", "error_message")
  end

  def test_jobs_and_captures_continue_while_redis_is_down
    server = sidekiq(install: "queue_latency: true")
    wait_for_first_poll(server)
    redis.stop
    diagctl!("request", "sidekiq", "heap_dump", "--reason", "Redis is away", "--wait")
    told = JSON.parse(report("latest", "sidekiq"))
    assert_equal 0, told["busy"]
    wait_until("it is told", tell: server.method(:log)) { server.log.include?("gauge sidekiq.queue_latency raised") }
    diagctl!("request", "gc_stat", "--reason", "still", "--wait")
    assert_equal 1, server.diagctl_lines.grep(/queue_latency/).size, server.log
    redis.start
    done = File.join(@root, "done")
    redis.push("Touch", done)
    wait_until("Sidekiq works again", tell: server.method(:log)) { File.exist?(done) }
  end

  def test_jobs_run_when_installed_twice_with_an_unusable_store
    FileUtils.mkdir_p(@store)
    File.chmod(0o777, @store)
    server = sidekiq(server: "Diagctl::Sidekiq.install(config)")
    done = File.join(@root, "done")
    redis.push("Touch", done)
    wait_until("the job is done", tell: server.method(:log)) { File.exist?(done) }
    wait_until("the store is told", tell: server.method(:log)) { server.diagctl_lines.size >= 2 }
    assert_equal 1, server.diagctl_lines.grep(/already installed, and the first call remains in effect/).size, server.log
    server.stop
  end

  private

  def wait_for_first_poll(server)
    wait_until("a first poll", tell: server.method(:log)) { Dir.exist?(File.join(@store, "samples")) && !Dir.empty?(File.join(@store, "samples")) }
  end

  def assert_secret_is_nowhere(id)
    made = meta(id).fetch("reports").reject { |entry| entry["error"] }.map { |entry| entry["name"] }
    assert_includes made, "sidekiq"
    assert_includes made, "heap_dump"
    assert_empty made.select { |name| report(id, name).b.include?(SECRET) }
    refute_includes diagctl!("fetch", "#{id}:heap_dump", "--as", "json", "-o", "-").out, SECRET
    refute_includes File.read(File.join(@store, "reports", id, "meta.json")), SECRET
  end

  def assert_only_told(server, expected)
    wait_until("the log has it", tell: server.method(:log)) { server.diagctl_lines.grep(expected).any? }
    assert_empty server.diagctl_lines.grep_v(expected), server.log
  end
end
