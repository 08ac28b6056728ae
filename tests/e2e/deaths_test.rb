# frozen_string_literal: true

require_relative "support/e2e"

# `diagctl deaths` after workers of a real Puma, and a real Sidekiq, were stopped, restarted and killed.
class DeathsTest < E2E::Case
  def test_a_killed_worker_is_listed_with_its_captures_and_those_that_serve_are_not
    server = puma(workers: 2)
    victim, survivor = polling(server)
    diagctl!("request", "gc_stat", "--pid", victim.to_s, "--reason", "before it dies", "--wait")
    capture = captures.first.fetch("id")
    assert_empty deaths
    E2E::Processes.signal(:KILL, victim)
    death = wait_until("the death") { deaths.first }
    # Puma starts another worker in its place, which is alive.
    wait_until("a new worker", tell: server.method(:log)) { (polled - [victim, survivor]).any? }
    assert_equal [[victim], "puma"], [deaths.map { |one| one["pid"] }, death["role"]]
    assert_equal [[capture], false], death.values_at("captures", "polls").then { |ids, polls| [ids, polls.empty?] }
    assert_operator death["rss_bytes"], :>, 1 << 20
    wait_until("the master's note") { deaths.first["ended"] == "killed (SIGKILL)" }
    assert_match(/\s#{victim}\s+puma.*killed \(SIGKILL\)/, diagctl!("deaths", "--since", "10m").out)
    assert_match(/^deaths +1 process died in the last 24h; the last was puma worker-\d \(#{victim}\).*killed \(SIGKILL\)/, diagctl!("status").out)
    assert_match(/1 process died in the last 24h.*: diagctl deaths/, diagctl!("list").err)
  end

  def test_neither_a_phased_restart_nor_a_stop_is_a_death
    server = puma(workers: 2, preload: false)
    first = polling(server)
    phased_restart(server, first)
    polling(server)
    assert_empty deaths
    server.stop
    assert server.killed || deaths.empty?, deaths
    assert_nil diagctl!("status", "--json").json.dig("deaths", "last") unless server.killed
  end

  def test_a_stop_in_single_mode_is_no_death
    server = puma
    polling(server)
    server.stop
    assert server.killed || deaths.empty?, deaths
  end

  def test_a_worker_that_is_killed_during_a_restart_died
    server = puma(workers: 2, preload: false)
    first = polling(server)
    E2E::Processes.signal(:STOP, first.last)
    E2E::Processes.signal(:USR1, server.pid)
    wait_until("the restart has begun", tell: server.method(:log)) { server.log.include?("Stopping") }
    E2E::Processes.signal(:KILL, first.last)
    wait_until("the workers are replaced", tell: server.method(:log)) { (first & server.workers).empty? && server.workers.size == 2 }
    polling(server)
    wait_until("the death", tell: -> { deaths.inspect }) { deaths.map { |death| death.values_at("pid", "ended") } == [[first.last, "killed (SIGKILL)"]] }
  end

  def test_a_sidekiq_that_is_stopped_did_not_die_and_one_that_is_killed_did_with_its_jobs
    stopped = sidekiq(name: "stopped")
    wait_until("it polls", tell: stopped.method(:log)) { polled.include?(stopped.pid) }
    stopped.stop
    assert_empty deaths
    release = File.join(@root, "release")
    killed = sidekiq(name: "killed")
    2.times { |i| redis.push("Patient", "#{release}#{i}") }
    wait_until("the jobs run", tell: killed.method(:log)) { samples.any? { |sample| sample.dig("gauges", "sidekiq.running.Patient") == 2 } }
    killed.signal(:KILL)
    death = wait_until("the death") { deaths.first }
    assert_equal [killed.pid, { "Patient" => 2 }], death.values_at("pid", "jobs")
    assert_match(/\b2 Patient\b/, diagctl!("deaths").out)
    refute_includes diagctl!("deaths", "--json").out, release
  end

  def test_a_forked_child_does_not_say_the_goodbye_of_its_parent
    script = start_script
    wait_until("it polls") { polled.include?(script.pid) }
    script.run("Process.wait(fork { exit }); File.write('#{@root}/done', '')")
    wait_until("the child has ended") { File.exist?("#{@root}/done") }
    script.run("Process.kill(:KILL, Process.pid)")
    wait_until("the death", tell: script.method(:log)) { deaths.map { |death| death["pid"] } == [script.pid] }
  end

  # (what ends it, how that is shown; nil: it did not die)
  {
    "exit" => nil,
    "Process.kill(:TERM, Process.pid); sleep" => nil,
    "exit 3" => "exit status 3",
    "raise NoMemoryError, 'of a secret'" => "NoMemoryError",
    "Diagctl.announce_kill('memory_killer'); Process.kill(:TERM, Process.pid); sleep" => "by memory_killer",
    "exit!" => "unknown"
  }.each do |code, ended|
    define_method("test_#{code.scan(/\w+/).join('_')}") do
      script = start_script
      wait_until("it polls") { polled.include?(script.pid) }
      script.run(code)
      wait_until("its end") { E2E::Processes.reap.then { !E2E::Processes.alive?(script.pid) } }
      assert_equal [ended].compact, deaths.map { |death| death["ended"] }, script.log
      refute_includes diagctl!("deaths", "--json").out, "secret"
    end
  end

  # A request can fail while the limit is near, when the kernel takes the pages of the program away, so they go on until one is killed.
  # If the master comes late to look at the counter, nothing proves that the kill was that of the worker.
  def test_the_kernel_that_kills_a_worker_for_the_memory_limit_is_named
    cgroup = memory_cgroup(600 << 20)
    server = puma(workers: 2, wrapper: cgroup.enter)
    polling(server)
    killed = false
    hogs = Array.new(2) { Thread.new { server.get("/grow?mb=40") until killed } }
    wait_until("the kernel", deadline: 300, tell: -> { "#{deaths}\n#{server.log}" }) { deaths.any? { |death| death["ended"].end_with?("oom_kill") } }
    death = deaths.find { |one| one["ended"].end_with?("oom_kill") }
    assert_equal death["oom_window_ms"] <= 15_000, death["ended"] == "oom_kill", death
  ensure
    killed = true
    E2E::Processes.sweep
    hogs&.each(&:join)
    cgroup&.remove
  end

  # As systemd runs ExecStopPost= of a unit, with these variables.
  {
    %w[signal killed KILL] => "killed (SIGKILL)", %w[oom-kill killed KILL] => "oom_kill", %w[core-dump dumped SEGV] => "killed (SIGSEGV)",
    %w[exit-code exited 7] => "exit status 7", %w[success exited 0] => nil, %w[success killed TERM] => nil
  }.each do |said, ended|
    define_method("test_systemd_says_#{said.join('_').tr('-', '_')}_of_a_sidekiq") do
      server = sidekiq(name: "mailers")
      wait_until("it polls", tell: server.method(:log)) { polled.include?(server.pid) }
      server.signal(:KILL)
      server.await_end
      variables = env(**%i[SERVICE_RESULT EXIT_CODE EXIT_STATUS].zip(said).to_h)
      noted = diagctl!("ended", "--role", "sidekiq", "--name", "mailers", env: variables)
      assert_equal ["", "diagctl: noted the end of process #{server.pid}\n"], [noted.out, noted.err]
      assert_equal [ended].compact, deaths.map { |death| death["ended"] }
      again = diagctl("ended", "--role", "sidekiq", "--signal", "KILL", env: env)
      assert_equal 4, again.status, again
    end
  end

  def test_nobody_guesses_which_of_two_processes_a_parent_means
    first, second = Array.new(2) { start_script }
    wait_until("they poll") { ([first.pid, second.pid] - polled).empty? }
    alive = diagctl("ended", "--pid", first.pid.to_s, "--signal", "KILL")
    assert_equal 4, alive.status, alive
    E2E::Processes.signal(:KILL, first.pid, second.pid)
    wait_until("their end") { E2E::Processes.reap.then { [first, second].none? { |script| E2E::Processes.alive?(script.pid) } } }
    both = diagctl("ended", "--role", "script", "--signal", "KILL")
    assert_equal 4, both.status, both
    assert_match(/2 processes ended at that time: .*#{first.pid} script one/, both.err)
    diagctl!("ended", "--pid", first.pid.to_s, "--signal", "KILL")
    diagctl!("ended", "--role", "script", "--exit", "3")
    assert_equal({ first.pid => "killed (SIGKILL)", second.pid => "exit status 3" }, deaths.to_h { |death| death.values_at("pid", "ended") })
    unknown = diagctl("ended", "--role", "script")
    assert_equal [2, true], [unknown.status, unknown.err.include?("it is not known how the process ended")], unknown
  end

  ROUTES = <<~RUBY
    require "diagctl/rack"
    use Diagctl::Rack
    use(Class.new do
      def initialize(app) = @app = app
      def call(env)
        return @app.call(env) unless env["PATH_INFO"].start_with?("/posts")
        env["sinatra.route"] = "GET /posts/:id" if env["PATH_INFO"] =~ /[0-9]/
        return Diagctl.working_on("Posts#import") { sleep } if env["PATH_INFO"] == "/posts/import"
        sleep
      end
    end)
  RUBY

  # Routes from the framework, and work that the application names itself.
  def test_the_routes_of_the_requests_in_progress_are_told_and_no_path
    server = puma(initializer: ROUTES)
    polling(server)
    requests = %w[/posts/4711?token=secret /posts/import].map { |path| Thread.new { server.get(path, timeout: 300) } }
    expected = { "GET:/posts/:id" => 1, "Posts#import" => 1 }
    wait_until("a poll with both", tell: server.method(:log)) { expected.all? { |route, count| samples.any? { |s| s.dig("gauges", "request.running.#{route}") == count } } }
    E2E::Processes.signal(:KILL, server.pid)
    death = wait_until("the death") { E2E::Processes.reap.then { deaths.first } }
    assert_equal expected, death["requests"]
    assert_match(%r{ GET:/posts/:id, Posts#import }, diagctl!("deaths").out)
    refute_match(/4711|secret/, File.read(File.join(@store, "samples.jsonl")))
  ensure
    E2E::Processes.sweep
    requests&.each(&:join)
  end

  private

  # Returns the workers once all of them have polled.
  def polling(server)
    wait_until("all workers to poll", tell: server.method(:log)) { (server.workers - polled).empty? && server.workers.any? }
    server.workers
  end

  def phased_restart(server, first)
    E2E::Processes.signal(:USR1, server.pid)
    wait_until("the workers are replaced", deadline: 90, tell: server.method(:log)) { (first & server.workers).empty? && server.workers.size == 2 }
  end

  def samples
    file = File.join(@store, "samples.jsonl")
    File.exist?(file) ? File.readlines(file).map { |line| JSON.parse(line) } : []
  end

  def polled = samples.filter_map { |sample| sample["pid"] }.uniq

  def deaths = diagctl!("deaths", "--json").json.fetch("deaths")
end
