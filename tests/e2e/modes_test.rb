# frozen_string_literal: true

require_relative "support/e2e"

# The ways to run Puma, and what its master does to workers while one of them is being dumped.
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

  def test_phased_restart_in_the_middle_of_a_dump
    server = puma(workers: 2, preload: false)
    assert_capture_survives(server) { E2E::Processes.signal(:USR1, server.pid) }
  end

  def test_refork_in_the_middle_of_a_dump_of_the_worker_that_forks
    server = puma(workers: 2, preload: false, first: "fork_worker")
    of_worker_0 = server.log[/Worker 0 \(PID: (\d+)\) booted/, 1].to_i
    assert_capture_survives(server, victim: of_worker_0, replaced: server.workers - [of_worker_0]) do
      E2E::Processes.signal(:URG, server.pid)
    end
    # A worker that worker 0 forked polls for itself, and holds nothing of the dump that was under way at the fork.
    younger = (server.workers - [of_worker_0]).first
    diagctl!("request", "threads", "--pid", younger, "--reason", "a fork of worker 0")
    assert_equal younger, meta(wait_for_captures(server, 2).first.fetch("id")).fetch("pid")
  end

  # Puma becomes its successor by exec: same pid, and the dumper is now a child that nobody there knows of.
  def test_hot_restart_of_single_mode_in_the_middle_of_a_dump
    server = puma
    wait_until("it polls") { polling.include?(server.pid) }
    diagctl!("request", "heap_dump", "--reason", "a restart comes")
    dumper = nil
    during_a_dump do |pid, _|
      dumper = pid
      E2E::Processes.signal(:USR2, server.pid)
      wait_until("it is restarted", tell: server.method(:log)) do
        server.log.scan("Use Ctrl-C").size >= 2 && server.get("/") && E2E::Processes.alive?(dumper)
      end
    end
    id = wait_for_captures(server).first.fetch("id")
    assert_equal server.pid, meta(id).fetch("pid")
    assert_heap_dump(id)
    wait_until("the dumper has ended") { !E2E::Processes.alive?(dumper) }
    # The successor polls, and dumps again.
    diagctl!("request", "threads", "--reason", "after the restart")
    wait_for_captures(server, 2)
    # It stays in the process table for as long as its Puma lives, and no longer.
    server.stop
    wait_until("the dumper is nobody's child any more") do
      E2E::Processes.reap
      !File.exist?("/proc/#{dumper}")
    end
  end

  def test_worker_is_told_to_end_in_the_middle_of_a_dump
    server = puma(workers: 2)
    assert_capture_survives(server) { |victim| E2E::Processes.signal(:TERM, victim) }
  end

  private

  def polling
    return [] unless File.exist?(File.join(@store, "FORMAT"))

    diagctl!("status", "--json").json.fetch("processes").map { |process| process.fetch("pid") }
  end

  # Dumps a worker, has something done to Puma meanwhile, and waits until the workers in question are replaced. The dump goes on
  # to its end.
  def assert_capture_survives(server, victim: nil, replaced: nil)
    victim ||= server.workers.first
    replaced ||= [victim]
    wait_until("the worker polls") { polling.include?(victim) }
    count = server.workers.size
    diagctl!("request", "heap_dump", "--pid", victim, "--reason", "its worker will not stay")
    during_a_dump do |dumper, _|
      yield victim
      wait_until("the workers are replaced", tell: server.method(:log)) do
        (replaced & server.workers).empty? && server.workers.size == count
      end
      assert E2E::Processes.alive?(dumper), "the dumper went with its worker"
      assert_empty E2E::Processes.sockets(dumper)
      assert server.get("/"), "Puma does not serve"
    end
    id = wait_for_captures(server).first.fetch("id")
    assert_equal victim, meta(id).fetch("pid")
    assert_heap_dump(id)
  end
end
