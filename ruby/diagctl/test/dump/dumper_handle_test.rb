# frozen_string_literal: true

require_relative "../capturing"

# The worker watches, reaps and kills its dumper.
class DumperHandleTest < Minitest::Test
  include Capturing

  def test_the_dumper_holds_the_lease_until_it_ends
    capture(reports: { "heap_dump" => "snapshot" }, put: "exec sleep 30")
    child = eventually("the dumper") { @agent.dumper }
    eventually("put runs") { calls("put").any? }
    refute lease_free?, "the dumper holds the lease"
    Process.kill(:KILL, -child.pid)
    eventually("the lease is free") { lease_free? }
    eventually("logged") { !@agent.busy? && @logger.lines.any?(/was killed by SIGKILL/) }
  end

  def test_there_is_no_poll_while_the_dumper_of_this_process_runs
    capture(reports: { "heap_dump" => "snapshot" }, put: WAITING)
    polls = calls("acquire").size
    assert_equal "busy", @agent.poll.verdict
    assert_equal polls, calls("acquire").size
  ensure
    go
  end

  # The dead dumper cannot tell the store any more, so the worker does.
  def test_a_dump_is_abandoned_with_a_reason_when_memory_runs_short
    used = File.join(@dir, "memory.current")
    stat = File.join(@dir, "memory.stat")
    File.write(used, "300000000\n")
    File.write(stat, "anon 5\ninactive_file 1000\n")
    limit = { of: "cgroup x", reserve: 50_000_000, limit: 400_000_000, used: used, stat: stat, droppable: "inactive_file" }
    capture(reports: { "heap_dump" => "snapshot" }, put: "exec sleep 30", watch: [limit])
    eventually("put runs") { calls("put").any? }
    assert_predicate @agent, :busy?
    File.write(used, "380000000\n")
    eventually("abandoned") { !@agent.busy? }
    why = "its dumper was killed: memory ran short: cgroup x has 19.1 MiB free, and a dump needs 47.7 MiB"
    assert_includes @logger.lines, "capture #{CAPTURE} (r): #{why}"
    assert_equal ["finalize --lease-fd=3 #{CAPTURE} --records --broken-off --why=#{why}"], calls("finalize")
    # The put that was killed together with the dumper may need another moment to end.
    eventually("the lease is free") { lease_free? }
  end

  def test_the_worker_kills_a_dumper_that_outlives_its_alarm_and_its_put
    child = leader_of_a_group("trap '' ALRM TERM; sleep 300 & sleep 300", processes: 3, limit: 0.5)
    assert_nil child.reap
    outcome = eventually("killed") { child.reap }
    assert_equal :timeout, outcome.kind
    eventually("the whole group is gone") { group(child.pid).empty? }
  end

  # The alarm ends the dumper, but a put that hangs would keep the lease.
  def test_the_put_of_a_dead_dumper_is_killed
    child = leader_of_a_group("trap '' TERM; sleep 300 & exec sleep 300", processes: 2, limit: 60)
    assert_nil child.reap
    Process.kill(:ALRM, child.pid)
    outcome = eventually("reaped") { child.reap }
    assert_equal [:signaled, Signal.list["ALRM"]], [outcome.kind, outcome.code]
    eventually("the whole group is gone") { group(child.pid).empty? }
  end

  # Uses programs of the dumper's name, group and priority.
  def test_inherited_dumpers_are_recognized_dead_or_alive_and_no_other_child_is
    # PRIO_PROCESS. Ruby for WebAssembly has neither the constant nor the function.
    skip "from the priority of this process, that of a dumper cannot be reached" unless Process.getpriority(0, 0).between?(0, 13)

    dumpers = [named("diagctl"), named("diagctl")]
    others = [named("sleep"), named("diagctl", nice: "5"), named("diagctl", pgroup: nil)]
    Process.kill(:KILL, dumpers.first)
    eventually("a zombie") { File.read("/proc/#{dumpers.first}/stat").include?(") Z ") }
    known = Diagctl::Children.inherited
    assert_equal [dumpers, []], [dumpers & known, others & known]
  ensure
    [*dumpers, *others].each { |pid| Process.kill(:KILL, pid) && Process.wait(pid) }
  end

  def test_a_dumper_that_is_still_running_after_stop_is_reaped
    path = granting_binary(reports: { "heap_dump" => "snapshot" }, put: WAITING)
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      Diagctl.capture
      pid = Diagctl.instance_variable_get(:@agent).dumper.pid
      p Diagctl.stop
      File.write(#{File.join(@store, "go").dump}, "")
      gone = -> { Process.kill(0, pid) && false rescue true }
      limit = Diagctl::Clock.now + 20
      sleep 0.01 until gone.call || Diagctl::Clock.now > limit
      p gone.call
    RUBY
    assert_equal "true\ntrue\n", out
    assert_path_exists File.join(@store, "put.heap_dump")
  end

  # Starts a program that sleeps, and waits until it has that name.
  def named(name, nice: "19", pgroup: true)
    path = File.join(@dir, "bin", name)
    FileUtils.mkdir_p(File.dirname(path))
    FileUtils.ln_s("/bin/sleep", path, force: true)
    pid = Process.spawn("nice", "-n", nice, path, "60", pgroup: pgroup)
    eventually("#{name} runs") { File.read("/proc/#{pid}/comm").chomp == name }
    pid
  end

  # A shell in place of a dumper; it leads a group of the given number of processes.
  def leader_of_a_group(script, processes:, limit:)
    pid = Process.spawn("sh", "-c", script, pgroup: true)
    grant = Struct.new(:capture, :rule, :watch, :deadline).new("id", "r", [], 60)
    eventually("its group") { group(pid).size >= processes }
    Diagctl::DumperHandle.new(pid, grant, nil, Diagctl::Clock.now + limit)
  end

  # The live processes of a group. A zombie waits for whatever process 1 is here.
  def group(leader)
    Dir["/proc/[0-9]*/stat"].select do |stat|
      state, _parent, group = File.read(stat).rpartition(")").last.split
      group.to_i == leader && state != "Z"
    rescue SystemCallError
      false
    end
  end
end
