# frozen_string_literal: true

require_relative "support/e2e"

# Sidekiq is quieted, stopped, or embedded, and several of them share a node with a Puma.
class SidekiqLifecycleTest < E2E::Case
  def setup
    super
    @release = File.join(@root, "release")
  end

  def test_quiet_and_term_during_a_dump
    server = sidekiq(head: "HEAP = Array.new(200_000) { |i| i.to_s * 10 }")
    jid = redis.push("Patient", @release)
    wait_until("the job runs") { File.exist?("#{@release}.begun") }
    diagctl!("request", "heap_dump", "sidekiq", "--reason", "a deploy comes")
    during_a_dump do |dumper, _|
      server.signal(:TSTP)
      wait_until("Sidekiq is quiet", tell: server.method(:log)) { server.log.match?(/TSTP|quiet/i) }
      waiting = redis.push("Touch", File.join(@root, "not-now"))
      server.stop
      assert E2E::Processes.alive?(dumper), "the dumper did not outlive Sidekiq"
      assert_empty captures, "the dump was over too early to prove anything"
      assert_equal [jid, waiting].sort, redis.waiting.sort, "what was running is pushed back, what waited waits"
    end
    assert_equal "Sidekiq::Shutdown", File.read("#{@release}.raised")
    id = wait_for_captures(server).first.fetch("id")
    assert_heap_dump(id, strings: 200_000)
    assert_equal jid, JSON.parse(report(id, "sidekiq"))["jobs"].first["jid"]
    refute_path_exists File.join(@root, "not-now")
    assert_nothing_staged
  end

  def test_a_quiet_sidekiq_keeps_polling
    server = sidekiq
    redis.push("Patient", @release)
    wait_until("the job runs") { File.exist?("#{@release}.begun") }
    server.signal(:TSTP)
    wait_until("Sidekiq is quiet", tell: server.method(:log)) { server.log.match?(/TSTP|quiet/i) }
    diagctl!("request", "sidekiq", "heap_dump", "--reason", "what keeps it?", "--wait")
    assert_equal "Patient", JSON.parse(report("latest", "sidekiq"))["jobs"].first["class"]
    File.write(@release, "")
    server.stop
    assert_empty redis.waiting
  end

  def test_several_sidekiqs_and_a_puma_on_one_node_never_dump_together
    witness = E2E::Witness.new(@root)
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat heap_dump], 'select = "round_robin"'), poll_interval: "100ms")
    shared = env(DIAGCTL_BIN: witness.binary)
    heap = "HEAP = Array.new(100_000) { |i| i.to_s * 10 }"
    sidekiqs = %w[mailers default imports].map { |name| sidekiq(env: shared, name: name, head: heap) }
    web = puma(env: shared, workers: 2, initializer: heap)
    traffic = E2E::Traffic.new(web)
    pids = sidekiqs.map(&:pid) + web.workers
    dumped = wait_until("each of them has dumped", deadline: 120, every: 0.3, tell: -> { diagctl("status", "--explain").to_s }) do
      found = captures
      found if (pids - found.map { |capture| capture["pid"] }).empty?
    end
    assert_equal %w[puma sidekiq], dumped.map { |capture| capture["role"] }.uniq.sort
    names = dumped.select { |capture| capture["role"] == "sidekiq" }.map { |capture| capture["worker"] }
    assert_equal %w[default imports mailers], names.uniq.sort
    assert_equal 0, traffic.stop.failed
    [*sidekiqs, web].each(&:stop)
    wait_until("the last dumper is done") { E2E::Processes.reap.then { E2E::Processes.descendants.all? { |process| process.pid == redis.pid } } }
    assert witness.saw?, "no put was witnessed"
    assert_empty witness.overlaps
    assert_nothing_staged
  end

  def test_capsules_and_their_jobs_are_in_the_report
    skip "capsules came with Sidekiq 7.0" unless E2E::SidekiqServer.capsules?

    sidekiq(server: 'config.capsule("single") { |capsule| capsule.concurrency = 1; capsule.queues = %w[single] }')
    jid = redis.push("Patient", @release, queue: "single")
    wait_until("the job runs") { File.exist?("#{@release}.begun") }
    diagctl!("request", "sidekiq", "--reason", "capsules", "--wait")
    told = JSON.parse(report("latest", "sidekiq"))
    assert_equal({ "concurrency" => 1, "queues" => %w[single] }, told["capsules"]["single"])
    assert_equal [3, %w[default single]], [told["concurrency"], told["queues"].sort]
    assert_equal [["Patient", jid, "single"]], told["jobs"].map { |job| job.values_at("class", "jid", "queue") }
  end

  def test_an_embedded_sidekiq_is_like_any_other
    skip "the embedded mode came with Sidekiq 7.0" unless E2E::SidekiqServer.capsules?

    server = E2E::SidekiqServer.new(@root, redis, env: env).start_embedded
    jid = redis.push("Patient", @release)
    wait_until("the job runs", tell: server.method(:log)) { File.exist?("#{@release}.begun") }
    diagctl!("request", "sidekiq", "heap_dump", "--role", "sidekiq", "--reason", "embedded", "--wait")
    assert_equal jid, JSON.parse(report("latest", "sidekiq"))["jobs"].first["jid"]
    File.write(@release, "")
    server.stop
    assert_empty server.diagctl_lines.grep_v(/stored after/), server.log
  end

  # As Sidekiq recommends, in the hooks of a worker. They precede the plugin in puma.rb.
  EMBEDDED = <<~RUBY
    $LOAD_PATH.unshift "#{E2E::ROOT}/ruby/sidekiq-middleware/lib"
    require "sidekiq"
    require "diagctl/sidekiq"
    Sidekiq.configure_server { |config| Diagctl::Sidekiq.install(config) }
    hook = ->(name) { respond_to?("before_\#{name}") ? "before_\#{name}" : "on_\#{name}" }
    public_send(hook.("worker_boot")) { ($embedded = Sidekiq.configure_embed { |config| config.queues = %w[default] }).run }
    public_send(hook.("worker_shutdown")) { $embedded.stop }
  RUBY

  def test_a_sidekiq_embedded_in_a_puma_with_the_plugin_belongs_to_the_puma
    skip "the embedded mode came with Sidekiq 7.0" unless E2E::SidekiqServer.capsules?

    jobs = File.join(@root, "jobs.rb")
    File.write(jobs, E2E::SidekiqServer::JOBS)
    server = puma(env: env(REDIS_URL: redis.url), workers: 1, first: "#{EMBEDDED}\nrequire #{jobs.inspect}")
    jid = redis.push("Patient", @release)
    wait_until("the job runs", tell: server.method(:log)) { File.exist?("#{@release}.begun") }
    diagctl!("request", "sidekiq", "puma", "heap_dump", "--reason", "both", "--wait")
    assert_equal [["puma", "worker-0"]], captures.map { |capture| capture.values_at("role", "worker") }
    assert_equal jid, JSON.parse(report("latest", "sidekiq"))["jobs"].first["jid"]
    assert_equal 2, JSON.parse(report("latest", "puma")).dig("server", "max_threads")
    File.write(@release, "")
    server.stop
    assert_empty server.log.lines.grep(/\[diagctl\]/).grep_v(/stored after/), server.log
  end
end
