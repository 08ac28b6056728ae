# frozen_string_literal: true

require_relative "support"

# Compares what diagctl reads from cgroup v2 with the kernel's own figures.
class CgroupV2Test < Guest::Case
  MIB = Guest::MIB

  def test_usage_is_the_working_set_and_not_the_page_cache
    group = leaf("memory.max" => 256 * MIB)
    process = worker(group)
    configure(rule("full", 'memory_usage = { of = "cgroup", above = "80%" }', ["cgroup"], ONCE))
    process.read_file(File.join(@root, "big"), 300)
    assert_operator group["memory.current"].to_i, :>, 0.8 * 256 * MIB, "the page cache was to fill the group"
    answer = poll(process)
    refute_granted(answer)
    assert_match(/cgroup_working_set [\d.]+ MiB is not above 80% \(204.8 MiB\)/, answer.fetch("reason"))
    assert_in_delta group.working_set, answer.dig("observed", "cgroup_working_set"), 8 * MIB

    process.grow(210)
    answer = poll(process)
    assert_equal ["granted", 256 * MIB * 8 / 10], [answer["verdict"], answer.dig("observed", "threshold")], answer
    assert_in_delta group.working_set, answer.dig("observed", "cgroup_working_set"), 8 * MIB
    assert_cgroup_report(group, answer.fetch("capture"))
  end

  def test_the_limit_of_a_group_above_counts_with_all_that_is_in_that_group
    parent = slice("memory.max" => 256 * MIB)
    process = worker(parent.child("app"))
    neighbour = worker(parent.child("neighbour"))
    process.grow(60)
    neighbour.grow(120)
    configure(rule("full", 'memory_usage = { of = "cgroup", above = "90%" }', ["cgroup"], ONCE), guards: "memory_headroom = 1.0")
    diagctl!("request", "heap_dump", "--pid", process.pid, "--reason", "is there room?")
    answer = poll(process)
    assert_equal %w[guarded memory_headroom], answer.values_at("verdict", "guard"), answer
    free = answer.fetch("reason")[/([\d.]+) MiB of memory are free beyond the reserve/, 1].to_f
    # The reserve of a limit this small is 32 MiB.
    assert_in_delta ((256 - 32) * MIB - parent.working_set) / MIB, free, 8, answer
    assert_match(/guards.memory_headroom wants [\d.]+ MiB \(1 × rss [\d.]+ MiB\)/, answer.fetch("reason"))
    refute_granted(answer)

    neighbour.grow(50)
    answer = poll_until_granted(process, "the group above is at 90 %")
    assert_equal "full", answer.fetch("rule")
    assert_in_delta parent.working_set, answer.dig("observed", "cgroup_working_set"), 8 * MIB
    report = report_of(answer.fetch("capture"))
    assert_equal [parent.dir, "max", (256 * MIB).to_s],
                 [report["limited_by"], report.dig("files", "memory.max"), report.dig("limited_by_files", "memory.max")]
  end

  def test_headroom_is_to_the_level_at_which_the_kernel_throttles
    group = leaf("memory.high" => 160 * MIB, "memory.max" => 1024 * MIB)
    process = worker(group)
    process.grow(90)
    configure(guards: "memory_headroom = 1.0")
    diagctl!("request", "heap_dump", "--reason", "is there room?")
    answer = poll(process)
    assert_equal %w[guarded memory_headroom], answer.values_at("verdict", "guard"), answer
    group["memory.high"] = "max"
    assert_equal "granted", poll(process).fetch("verdict")
  end

  # A group without the memory controller has no figures: its memory is charged to the nearest group above that has it.
  def test_a_group_without_the_memory_controller_is_accounted_above
    parent = slice(controllers: "+cpu", "memory.max" => 256 * MIB)
    process = worker(parent.child("inner"))
    refute_path_exists File.join(parent.dir, "inner/memory.current")
    configure(rule("full", 'memory_usage = { of = "cgroup", above = "50%" }', ["cgroup"], ONCE) +
              rule("event", 'memory_event = { events = ["max"] }', ["system"], ONCE))
    answer = poll(process)
    refute_granted(answer)
    process.grow(140)
    answer = poll(process)
    assert_equal %w[granted full], answer.values_at("verdict", "rule"), answer
    refute_match(/cannot read/, diagctl!("status", "--explain").out)
  end

  def test_a_process_in_the_root_group_is_told_that_it_has_no_figures_and_is_measured_by_the_host
    process = Guest::Worker.new(env, [])
    configure(rule("full", 'memory_usage = { of = "cgroup", above = "1%" }', ["cgroup"], ONCE))
    answer = poll(process)
    assert_equal %w[idle full], answer.values_at("verdict", "rule"), answer
    assert_match(/skipped: cgroup .* has no memory figures: it is the root/, answer.fetch("reason"))
    diagctl!("request", "heap_dump", "--reason", "the host has room")
    assert_equal "granted", poll(process).fetch("verdict")
  end

  def test_a_crossed_high_fires_once_and_an_old_count_is_a_baseline
    group = leaf("memory.high" => 96 * MIB)
    process = worker(group)
    big = File.join(@root, "big")
    process.read_file(big, 150)
    assert_operator group.events.fetch("high"), :>, 0
    configure(rule("throttled", 'memory_event = { events = ["high"] }', ["cgroup"]))
    2.times { refute_granted(poll(process)) }
    before = group.events.fetch("high")
    process.read_file(big, 150)
    now = group.events.fetch("high")
    answer = poll(process)
    assert_equal ["granted", now], [answer["verdict"], answer.dig("observed", "memory.events.high")], answer
    assert_equal "memory.events high rose by #{now - before}, from #{before} to #{now}", answer.fetch("reason")
    2.times { refute_granted(poll(process)) }
  end

  # The kernel counts a hit limit in the group that has the limit, and a kill in the group of the victim.
  def test_a_limit_above_that_is_hit_is_an_event_of_every_process_under_it
    parent = slice("memory.max" => 128 * MIB)
    apart = leaf("memory.max" => 64 * MIB)
    process = worker(parent.child("app"))
    outsider = worker(apart)
    configure(%w[max oom oom_kill].map { |event| rule(event, "memory_event = { events = [\"#{event}\"] }", ["cgroup"], ONCE) }.join)
    [process, outsider].each { |each| refute_granted(poll(each)) }
    victim = fork_victim(process, 200)
    wait_until("the kernel killed #{victim}") { parent.events.fetch("oom_kill") == 1 }
    assert_operator parent["memory.events.local"][/^max (\d+)/, 1].to_i, :>, 0
    granted = Array.new(3) { poll(process) }
    assert_equal %w[max oom oom_kill], granted.map { |answer| answer["rule"] }.sort, granted
    refute_granted(poll(process))
    assert E2E::Processes.alive?(process.pid)
    outsider.run("nil")
    refute_granted(poll(outsider))
  end

  def test_a_neighbours_own_limit_is_no_event_of_ours
    parent = slice("memory.max" => 512 * MIB)
    process = worker(parent.child("app"))
    neighbour = worker(parent.child("neighbour", "memory.max" => 64 * MIB))
    configure(rule("hit", 'memory_event = { events = ["max", "oom", "oom_kill"] }', ["cgroup"]))
    refute_granted(poll(process))
    fork_victim(neighbour, 100)
    wait_until("a kill in the neighbour's group") { parent.events.fetch("oom_kill") == 1 }
    assert_operator parent.events.fetch("max"), :>, 0
    refute_granted(poll(process))
  end

  # As in a container: the group is the root of the mount, with nothing above it.
  def test_a_group_that_is_the_root_of_a_namespace
    group = leaf("memory.max" => 256 * MIB)
    configure(rule("full", 'memory_usage = { of = "cgroup", above = "60%" }', ["cgroup"], ONCE) +
              rule("hit", 'memory_event = { events = ["max"] }', ["cgroup"], ONCE))
    inside = "umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && grep -qx 0::/ /proc/self/cgroup && exec \"$@\""
    process = worker(group, wrapper: ["unshare", "-C", "-m", "sh", "-c", inside, "sh"])
    process.run('require "diagctl"; Diagctl.configure { |c| c.first_poll_within = 0.01 }; Diagctl.start(role: "script", name: "one") or raise')
    wait_until("a first poll") { File.exist?(File.join(@store, "state.json")) && File.read(File.join(@store, "state.json")).include?("counters") }
    assert_empty captures
    process.grow(170)
    capture = wait_until("the share of the limit", tell: -> { diagctl("status", "--explain").to_s }) { captures.first }
    assert_equal "full", capture.fetch("rule")
    report = report_of(capture.fetch("id"))
    assert_equal ["/sys/fs/cgroup", 256 * MIB], report.values_at("path", "limit_bytes")
    process.read_file(File.join(@root, "big"), 200)
    wait_until("the hit limit", tell: -> { diagctl("status", "--explain").to_s }) { captures.any? { |each| each["rule"] == "hit" } }
  end

  def test_pressure_is_measured_of_the_group_and_of_the_host
    group = leaf("memory.max" => 64 * MIB)
    process = worker(group)
    idle = worker(leaf)
    of = ->(scope) { rule(scope, "memory_pressure = { of = \"#{scope}\", above = \"0.5%\" }", ["system"], ONCE) }
    configure(of.("cgroup") + of.("host"))
    poll(process)
    big = File.join(@root, "big")
    process.read_file(big, 200)
    process.run("Thread.new { loop { system('dd', 'if=#{big}', 'of=/dev/null', 'bs=1M', err: File::NULL) } }")
    granted = Array.new(2) { poll_until_granted(process, "both stall") }
    assert_equal %w[cgroup host], granted.map { |answer| answer["rule"] }.sort
    granted.each { |answer| assert_match(/memory pressure of the #{answer['rule']} [\d.]+% is above 0.5%/, answer["reason"]) }
    assert_operator group["memory.pressure"][/some .*total=(\d+)/, 1].to_i, :>, 0

    FileUtils.rm_rf(@store)
    configure(of.("cgroup"))
    3.times { refute_granted(poll(idle)) }
  end

  # A neighbour may stall on its own quota. A dump of ours would not add to that.
  def test_the_guard_on_cpu_pressure_looks_at_the_group_of_the_process
    ours = leaf("cpu.max" => "10000 100000")
    process = worker(ours)
    idle = worker(leaf)
    configure(guards: 'max_cpu_pressure = "20%"')
    diagctl!("request", "gc_stat", "--pid", process.pid, "--reason", "how busy is it?")
    process.run("2.times { Process.detach(fork { loop { } }) }")
    wait_until("the kernel's average rises") { pressure(File.join(ours.dir, "cpu.pressure")) > 40 }
    answer = poll(process)
    assert_equal %w[guarded cpu_pressure], answer.values_at("verdict", "guard"), answer
    assert_match(/CPU pressure of the cgroup [\d.]+% is above guards.max_cpu_pressure 20%/, answer.fetch("reason"))

    wait_until("the host's rises too") { pressure("/proc/pressure/cpu") > 20 }
    diagctl!("request", "gc_stat", "--pid", idle.pid, "--reason", "and this one?")
    poll_until_granted(idle, "a process that nothing stalls")
  end

  def test_projection_fires_before_the_limit
    process = worker(leaf("memory.max" => 256 * MIB))
    configure(rule("soon", 'memory_projection = { margin = "10%" }', ["cgroup"], ONCE))
    process.grow(60)
    2.times { refute_granted(poll(process)) }
    process.grow(90)
    answer = poll(process)
    assert_equal "granted", answer.fetch("verdict"), answer
    assert_in_delta 90 * MIB, answer.dig("observed", "increase"), 8 * MIB
    assert_match(/pass 230.4 MiB \(limit 256.0 MiB less 10%\)/, answer.fetch("reason"))
  end

  private

  # Forks a child that grows beyond the limit and that the kernel kills first.
  def fork_victim(process, megabytes)
    process.run("$victim = fork { File.write('/proc/self/oom_score_adj', '1000'); 'x' * (#{megabytes} << 20); sleep }; Process.detach($victim)")
  end

  def pressure(path) = File.read(path)[/^some avg10=([\d.]+)/, 1].to_f

  def report_of(id) = JSON.parse(diagctl!("fetch", "#{id}:cgroup", "-o", "-").out)

  def assert_cgroup_report(group, id)
    report = report_of(id)
    assert_equal [group.dir, 256 * MIB], report.values_at("path", "limit_bytes")
    assert_in_delta group.working_set, report.fetch("working_set_bytes"), 8 * MIB
    expected = %w[memory.current memory.max memory.high memory.stat memory.events memory.events.local memory.oom.group
                  memory.pressure memory.swap.current cpu.stat cpu.max cpu.pressure io.pressure pids.current cgroup.events cgroup.procs]
    assert_empty expected - report.fetch("files").keys
    assert_equal (256 * MIB).to_s, report.dig("files", "memory.max")
  end
end
