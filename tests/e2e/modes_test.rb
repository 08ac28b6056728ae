# frozen_string_literal: true

require_relative "support/e2e"

# The modes of Puma, and everything its master does to workers, during a dump of one of them.
class ModesTest < E2E::Case
  GROWTH = 40

  def test_one_and_sixteen_workers_take_turns
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat object_counts], 'select = "round_robin"'))
    [1, 16].each do |count|
      server = puma(workers: count)
      traffic = E2E::Traffic.new(server)
      wait_until("two of #{count} workers were captured", deadline: 120, tell: -> { diagctl("status", "--explain").to_s }) do
        captured = captures.map { |capture| capture["pid"] } & server.workers
        captured.size >= [2, count].min
      end
      wait_until("all #{count} poll") { (server.workers - polling).empty? }
      assert_equal [0, count], [traffic.stop.failed, server.workers.size]
      server.stop
    end
  end

  # Single mode has no workers to preload for, but accepts the setting.
  def test_every_mode_dumps_while_it_serves_and_stops_cleanly
    [0, 1, 2, 4, 16].product([true, false]).each do |workers, preload|
      server = puma(workers: workers, preload: preload)
      assert_dumps_while_it_serves(server, "#{workers} workers, preload_app! #{preload}")
      server.stop
      wait_until("nothing of #{workers} workers is left", tell: server.method(:log)) { E2E::Processes.descendants.empty? }
    end
  end

  # If a worker hangs while it stops (PumaServer#end_what_hangs_in_close), its master kills it, by default after 30 s.
  def test_phased_restart_of_2_and_of_16_workers_during_a_dump
    [2, 16].each do |count|
      server = puma(workers: count, preload: false, first: "worker_shutdown_timeout 2")
      assert_capture_survives(server, replaced: server.workers) { E2E::Processes.signal(:USR1, server.pid) }
      server.stop
    end
  end

  # The master, and single mode, execute a new program under the same pid, and the dumper remains their child.
  def test_hot_restart_of_single_mode_and_of_a_cluster_during_a_dump
    [0, 2].each do |count|
      server = puma(workers: count)
      assert_capture_survives(server, replaced: count.zero? ? [] : server.workers) do
        E2E::Processes.signal(:USR2, server.pid)
        wait_until("Puma is a new program", tell: server.method(:log)) { server.log.include?("Inherited tcp://") }
      end
      assert_dumps_while_it_serves(server, "#{count} workers, restarted")
      server.stop
    end
  end

  def test_refork_during_a_dump_of_the_forking_worker
    server = puma(workers: 2, preload: false, first: "fork_worker")
    of_worker_0 = server.log[/Worker 0 \(PID: (\d+)\) booted/, 1].to_i
    assert_capture_survives(server, victim: of_worker_0, replaced: server.workers - [of_worker_0]) do
      E2E::Processes.signal(:URG, server.pid)
    end
    # A worker forked by worker 0 polls for itself, and holds nothing of the dump that was in progress at the fork.
    younger = (server.workers - [of_worker_0]).first
    diagctl!("request", "threads", "--pid", younger, "--reason", "a fork of worker 0")
    assert_equal younger, meta(wait_for_captures(server, 2).first.fetch("id")).fetch("pid")
  end

  def test_preloaded_worker_is_terminated_and_replaced_during_a_dump
    server = puma(workers: 2, preload: true)
    assert_capture_survives(server) { |victim| E2E::Processes.signal(:TERM, victim) }
  end

  private

  def polling
    return [] unless File.exist?(File.join(@store, "FORMAT"))

    diagctl!("status", "--json").json.fetch("processes").map { |process| process.fetch("pid") }
  end

  # Asserts that a capture on demand is complete and that no request fails during it.
  def assert_dumps_while_it_serves(server, mode)
    before = captures.size
    traffic = E2E::Traffic.new(server)
    diagctl!("request", "heap_dump", "threads", "--reason", mode)
    # A dumper has the lowest priority: beside programs that keep every processor busy it takes minutes.
    capture = wait_for_captures(server, before + 1, deadline: 300).first
    assert_equal 0, traffic.stop.failed, mode
    assert_operator traffic.served, :>, 0, mode
    assert_includes server.workers, capture.fetch("pid"), mode
    assert_heap_dump(capture.fetch("id"))
    threads = report(capture.fetch("id"), "threads")
    ["puma srv", "diagctl poller"].each { |name| assert_includes threads, %(Thread "#{name}" ), mode }
    assert_nothing_staged
  end

  # Dumps a worker, does something to Puma during the dump, and waits until the workers are replaced. The dump must complete.
  def assert_capture_survives(server, victim: nil, replaced: nil)
    victim ||= server.workers.first
    replaced ||= [victim]
    wait_until("the worker polls") { polling.include?(victim) }
    count = server.workers.size
    before = captures.size
    diagctl!("request", "heap_dump", "--pid", victim, "--reason", "its worker will not stay")
    dumper = during_a_dump do |pid, _|
      yield victim
      wait_until("the workers are replaced", tell: server.method(:log)) do
        (replaced & server.workers).empty? && server.workers.size == count
      end
      assert E2E::Processes.alive?(pid), "the dumper went with its worker"
      assert_empty E2E::Processes.sockets(pid)
      assert server.get("/"), "Puma does not serve"
      pid
    end
    id = wait_for_captures(server, before + 1).first.fetch("id")
    assert_equal victim, meta(id).fetch("pid")
    assert_heap_dump(id)
    # The worker reaps it, or this process if the worker is gone.
    wait_until("the dumper is reaped") { E2E::Processes.reap.then { !Dir.exist?("/proc/#{dumper}") } }
  end
end
