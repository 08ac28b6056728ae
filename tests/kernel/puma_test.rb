# frozen_string_literal: true

require_relative "support"

# A real Puma cluster in a memory cgroup, as in a container with a limit.
class PumaInCgroupTest < Guest::Case
  MIB = Guest::MIB

  def test_a_leak_is_dumped_before_the_limit_and_no_request_fails
    group = leaf("memory.max" => 512 * MIB)
    configure(rule("near-the-limit", 'memory_usage = { of = "cgroup", above = "30%" }', %w[cgroup heap_dump], ONCE), guards: "memory_headroom = 1.0")
    server = puma_in(group)
    assert_operator group.working_set, :<, 0.3 * 512 * MIB, "idle, it has to be below the level"
    traffic = E2E::Traffic.new(server, clients: 2, pause: 0.2)
    4.times { server.get("/grow?mb=25") }
    capture = wait_for_captures(server).first
    assert_equal 0, traffic.stop.failed
    assert_operator traffic.served, :>, 0
    assert_equal "near-the-limit", capture.fetch("rule")
    assert_match(/cgroup_working_set [\d.]+ MiB is above 30% \(153.6 MiB\)/, capture.fetch("reason"))
    assert_heap_dump(capture.fetch("id"))
    assert_equal 0, group.events.fetch("oom")
    puts "\nleak: #{capture['reason']}; cost #{meta(capture['id'])['cost']}; served #{traffic.served}"
  end

  # The dumper has oom_score_adj 1000: when the group hits its limit, the kernel kills it first.
  def test_at_the_limit_the_kernel_kills_the_dumper_and_the_worker_lives
    group = leaf("memory.max" => 512 * MIB)
    configure("", guards: "memory_headroom = 0.1")
    server = puma_in(group)
    server.get("/grow?mb=40")
    workers = server.workers
    diagctl!("request", "heap_dump", "--reason", "a dump at the limit")
    during_a_dump do |dumper, _put|
      assert_equal "1000", File.read("/proc/#{dumper}/oom_score_adj").strip
      squeeze(group)
      wait_until("the kernel killed the dumper") { !E2E::Processes.alive?(dumper) }
    end
    assert_equal workers, server.workers, "a worker was killed"
    assert server.get("/")
    wait_until("the log tells the death", tell: server.method(:log)) { server.diagctl_lines.any? { |line| line.include?("killed by SIGKILL") } }
    puts "\n", server.diagctl_lines, diagctl("status", "--explain").out
    assert_answered_after_all(server)
  end

  # vm.oom_kill_allocating_task would select the worker that asks for memory, but it has no effect within a memory cgroup
  # (out_of_memory in mm/oom_kill.c). But where all processes have the dumper's oom_score_adj, as in a Kubernetes pod of class
  # BestEffort, the kernel kills the largest, which is a worker that has grown since the fork.
  def test_the_kernel_kills_the_worker_in_the_middle_of_its_dump_and_the_capture_completes
    group = leaf("memory.max" => 512 * MIB)
    configure("", guards: "memory_headroom = 0.1")
    server = puma_in(group, workers: 1, wrapper: ["/bin/sh", "-c", 'echo 1000 > /proc/self/oom_score_adj && exec "$@"', "sh"])
    server.get("/grow?mb=40")
    victim = server.workers.first
    diagctl!("request", "heap_dump", "--reason", "its worker is about to run out of memory")
    during_a_dump do |dumper, _put|
      # `put` is stopped, and so the dumper waits: only the worker asks for memory.
      group["memory.max"] = group["memory.current"].to_i + 16 * MIB
      wait_until("the kernel kills", every: 0) { server.get("/grow?mb=40").then { group.events.fetch("oom_kill").positive? } }
      group["memory.max"] = 512 * MIB
      wait_until("the worker is dead") { !E2E::Processes.alive?(victim) }
      assert_includes `dmesg`, "Memory cgroup out of memory: Killed process #{victim} "
      assert_equal 1, group.events.fetch("oom_kill")
      assert E2E::Processes.alive?(dumper), "the dumper went, too"
      assert_empty captures, "the dump was over too early to prove anything"
    end
    id = wait_for_captures(server).first.fetch("id")
    assert_equal victim, meta(id).fetch("pid")
    assert_heap_dump(id, strings: 40 * 1024)
    assert_nothing_staged
    wait_until("Puma has another worker", tell: server.method(:log)) { server.workers.any? && server.get("/") }
  end

  # Kubernetes sets memory.oom.group for containers on cgroup v2: then exceeding the limit ends every process in the group.
  def test_with_oom_group_a_dump_at_the_limit_ends_everything_in_the_group
    group = leaf("memory.max" => 512 * MIB, "memory.oom.group" => 1)
    configure("", guards: "memory_headroom = 0.1")
    server = puma_in(group)
    diagctl!("request", "heap_dump", "--reason", "a dump at the limit")
    during_a_dump { squeeze(group) }
    wait_until("the kernel killed the whole group") { group["cgroup.procs"].empty? }
    assert_equal 1, group.events.fetch("oom_group_kill")
    refute E2E::Processes.alive?(server.pid)
    assert_empty captures
    assert_match(/^lease +free/, diagctl!("status").out)

    assert_answered_after_all(puma_in(group))
  end

  private

  # A request whose dumper died is served by the next: one complete capture, and nothing of the one that died.
  def assert_answered_after_all(server)
    assert_heap_dump(wait_for_captures(server).first.fetch("id"))
    assert_equal 1, captures.size
    assert_nothing_staged
  end

  def puma_in(group, workers: 2, wrapper: []) = E2E::PumaServer.new(@root, env: env, workers: workers, wrapper: group.enter + wrapper).start

  # Lowers the limit, a megabyte at a time, until the kernel has to kill. Then restores it.
  def squeeze(group)
    before = group["memory.max"]
    kills = group.events.fetch("oom_kill")
    wait_until("the limit is hit", every: 0) do
      group["memory.max"] = group["memory.current"].to_i - MIB
      group.events.fetch("oom_kill") > kills
    end
  ensure
    group["memory.max"] = before
  end
end
