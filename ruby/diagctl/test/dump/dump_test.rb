# frozen_string_literal: true

require_relative "../capturing"

# What a forked dumper does, seen from its worker.
class DumpTest < Minitest::Test
  include Capturing

  def test_a_heap_dump_comes_from_a_forked_child_with_its_cost
    result = capture(reports: { "gc_stat" => "inline", "object_counts" => "snapshot", "heap_dump" => "snapshot" })
    assert_predicate result, :granted?
    line = finalize_line
    %w[cost.fork_ms cost.pause_ms cost.inline_ms cost.spawn_ms cost.dumper_cpu_ms cost.copied_bytes].each do |cost|
      assert_match(/--set=#{cost}=\d/, line)
    end
    assert_equal %w[gc_stat object_counts heap_dump], calls("put").map { |call| call.split.last }
    lines = put("heap_dump").lines
    assert_operator lines.size, :>, 1000
    lines.each { |object| JSON.parse(object) }
    counts = JSON.parse(put("object_counts"))
    assert_equal 1, counts["classes"].count { |row| row["class"] == "String" }
    assert_operator counts["count_objects"]["T_STRING"], :>, 100
    eventually("reaped and told") { !@agent.busy? && @logger.lines.any?(/stored after/) }
  end

  # Ruby 3.4 cuts a dump short, or loses bytes in the middle of it, where a write is interrupted.
  def test_signals_leave_the_dump_whole
    capture(reports: { "heap_dump" => "snapshot" }, put: SLOW_READER)
    child = eventually("the dumper") { @agent.dumper }
    with_signals(child.pid) { assert_whole_dump }
  end

  def test_a_put_that_fails_is_named_with_its_own_words
    capture(reports: { "heap_dump" => "snapshot" }, put: "head -c 100 >/dev/null; echo 'no space left' >&2; exit 1")
    assert_match(/--failed=heap_dump=`diagctl put` ended with status 1: no space left/, finalize_line)
  end

  def test_the_lease_is_the_dumpers_and_ends_with_it
    capture(reports: { "heap_dump" => "snapshot" }, put: "exec sleep 30")
    child = eventually("the dumper") { @agent.dumper }
    eventually("put runs") { calls("put").any? }
    refute lease_free?, "the dumper holds the lease"
    Process.kill(:KILL, -child.pid)
    eventually("the lease is free") { lease_free? }
    eventually("told") { !@agent.busy? && @logger.lines.any?(/was killed by SIGKILL/) }
  end

  def test_no_poll_while_the_own_dumper_runs
    capture(reports: { "heap_dump" => "snapshot" }, put: WAITING)
    polls = calls("acquire").size
    assert_equal "busy", @agent.poll.verdict
    assert_equal polls, calls("acquire").size
  ensure
    go
  end

  def test_the_kernel_ends_a_dumper_at_its_deadline
    capture(reports: { "heap_dump" => "snapshot" }, deadline: 1, put: "exec sleep 4")
    eventually("killed by its alarm") { !@agent.busy? && @logger.lines.any?(/was killed by SIGALRM: it was not done within 1 s \(guards\.deadline\)/) }
    assert_empty calls("finalize")
  end

  # The store is told what the dead dumper cannot tell any more.
  def test_a_dump_is_given_up_with_a_reason_when_memory_runs_short
    used = File.join(@dir, "memory.current")
    stat = File.join(@dir, "memory.stat")
    File.write(used, "300000000\n")
    File.write(stat, "anon 5\ninactive_file 1000\n")
    limit = { of: "cgroup x", reserve: 50_000_000, limit: 400_000_000, used: used, stat: stat, droppable: "inactive_file" }
    capture(reports: { "heap_dump" => "snapshot" }, put: "exec sleep 30", watch: [limit])
    eventually("put runs") { calls("put").any? }
    assert_predicate @agent, :busy?
    File.write(used, "380000000\n")
    eventually("given up") { !@agent.busy? }
    why = "its dumper was killed, memory ran short: 19.1 MiB of cgroup x are free, a dump is given up below 47.7 MiB"
    assert_includes @logger.lines, "capture #{CAPTURE} (r): #{why}"
    assert_equal ["abort --lease-fd=3 #{CAPTURE} --reason=#{why}"], calls("abort")
    # The put that was killed with it may need a moment more to be gone.
    eventually("the lease is free") { lease_free? }
  end

  def test_a_dumper_that_outlives_its_alarm_is_killed_by_the_worker_with_its_put
    child = leader_of_a_group("trap '' ALRM TERM; sleep 300 & sleep 300", processes: 3, limit: 0.5)
    assert_nil child.reap
    outcome = eventually("killed") { child.reap }
    assert_equal :timeout, outcome.kind
    eventually("the whole group is gone") { group(child.pid).empty? }
  end

  # Its alarm ends it; a put that hangs would keep the lease.
  def test_a_dumper_that_dies_takes_its_put_along
    child = leader_of_a_group("trap '' TERM; sleep 300 & exec sleep 300", processes: 2, limit: 60)
    assert_nil child.reap
    Process.kill(:ALRM, child.pid)
    outcome = eventually("reaped") { child.reap }
    assert_equal [:signaled, Signal.list["ALRM"]], [outcome.kind, outcome.code]
    eventually("the whole group is gone") { group(child.pid).empty? }
  end

  # What stands in for them are programs of that name, group and priority.
  def test_dumpers_of_the_program_before_are_known_dead_or_alive_and_no_other_child_is
    dumpers = [named("diagctl"), named("diagctl")]
    others = [named("sleep"), named("diagctl", nice: "5"), named("diagctl", pgroup: nil)]
    Process.kill(:KILL, dumpers.first)
    eventually("a zombie") { File.read("/proc/#{dumpers.first}/stat").include?(") Z ") }
    known = Diagctl::DumperHandle.inherited
    assert_equal [dumpers, []], [dumpers & known, others & known]
  ensure
    [*dumpers, *others].each { |pid| Process.kill(:KILL, pid) && Process.wait(pid) }
  end

  # A program that sleeps, once it goes by that name.
  def named(name, nice: "19", pgroup: true)
    path = File.join(@dir, "bin", name)
    FileUtils.mkdir_p(File.dirname(path))
    FileUtils.ln_s("/bin/sleep", path, force: true)
    pid = Process.spawn("nice", "-n", nice, path, "60", pgroup: pgroup)
    eventually("#{name} runs") { File.read("/proc/#{pid}/comm").chomp == name }
    pid
  end

  # Stands in for a dumper: a shell that leads a group of so many processes.
  def leader_of_a_group(script, processes:, limit:)
    pid = Process.spawn("sh", "-c", script, pgroup: true)
    grant = Struct.new(:capture, :rule, :watch, :deadline).new("id", "r", [], 60)
    eventually("its group") { group(pid).size >= processes }
    Diagctl::DumperHandle.new(pid, grant, nil, Diagctl::Clock.now + limit)
  end

  # The processes of a group that are not dead: a zombie waits for whatever process 1 is here.
  def group(leader)
    Dir["/proc/[0-9]*/stat"].select do |stat|
      state, _parent, group = File.read(stat).rpartition(")").last.split
      group.to_i == leader && state != "Z"
    rescue SystemCallError
      false
    end
  end

  def test_a_thread_that_is_ended_while_it_forks_leaves_no_dumper_that_nobody_reaps
    fork_for_real = Diagctl::ForkGuard.method(:raw_fork)
    forked = false
    slowly = lambda do
      pid = fork_for_real.call
      forked = !pid.zero?
      sleep 0.01 until pid.zero? || Thread.pending_interrupt?
      pid
    end
    replacing(Diagctl::ForkGuard, :raw_fork, slowly) do
      thread = Thread.new { capture(reports: { "heap_dump" => "snapshot" }) }
      eventually("forked") { forked }
      thread.kill.join
    end
    refute_nil @agent.dumper
    finalize_line
  end

  # Whoever serves with fibers (falcon, async) may call it in one. The scheduler lives on in the dumper, where each wait
  # would go to it, and it would run the application's other fibers.
  class Scheduler
    def initialize
      @sleepers = {}
    end

    def close
      until @sleepers.empty?
        fiber, wake_at = @sleepers.min_by(&:last)
        @sleepers.delete(fiber)
        Thread.new { sleep [wake_at - Diagctl::Clock.now, 0].max }.join
        fiber.resume
      end
    end

    def kernel_sleep(seconds = 0.01)
      @sleepers[Fiber.current] = Diagctl::Clock.now + seconds
      Fiber.yield
      true
    end

    def io_wait(_io, events, _timeout)
      kernel_sleep
      events
    end

    def block(_blocker, timeout = nil)
      kernel_sleep(timeout || 0.01)
    end

    def unblock(_blocker, _fiber); end

    def fiber(&block)
      Fiber.new(blocking: false, &block).tap(&:resume)
    end
  end

  def test_a_capture_in_a_fiber_of_an_event_loop_runs_none_of_its_fibers_in_the_dumper
    ran_in = File.join(@dir, "ran_in")
    Thread.new do
      Fiber.set_scheduler(Scheduler.new)
      2.times { Fiber.schedule { 20.times { sleep(0.01) && File.write(ran_in, "#{Process.pid} ", mode: "a") } } }
      Fiber.schedule { capture(reports: { "heap_dump" => "snapshot" }) }
    end.join
    refute_match(/--failed/, finalize_line)
    assert_operator put("heap_dump").lines.size, :>, 1000
    assert_equal [Process.pid.to_s], File.read(ran_in).split.uniq
  end

  def test_a_failed_fork_gives_the_grant_back
    error = replacing(Diagctl::ForkGuard, :raw_fork, -> { raise Errno::EAGAIN, "fork(2)" }) do
      assert_raises(Diagctl::Problem) { capture(reports: { "heap_dump" => "snapshot" }) }
    end
    assert_match(/capture #{CAPTURE} was given back.*fork/, error.message)
    assert_match(/\Aabort --lease-fd=3 #{CAPTURE} --reason=the grant could not be used: Errno::EAGAIN/, calls("abort").first)
    assert lease_free?
  end

  # Before it forks, Ruby flushes its standard streams.
  def test_a_host_that_closed_its_stdout_gets_the_reason_and_the_store_its_grant
    before = $stdout
    $stdout = File.open(File::NULL, "w").tap(&:close)
    error = assert_raises(Diagctl::Problem) { capture(reports: { "heap_dump" => "snapshot" }) }
    assert_match(/capture #{CAPTURE} was given back.*IOError: closed stream/, error.message)
    assert_match(/\Aabort --lease-fd=3 #{CAPTURE} --reason=the grant could not be used: IOError/, calls("abort").first)
    assert lease_free?
  ensure
    $stdout = before
  end

  def test_what_finalize_says_reaches_the_log
    capture(reports: { "heap_dump" => "snapshot" }, finalize: "echo 'disk is full' >&2; exit 1")
    eventually("told") { !@agent.busy? && @logger.lines.any?(/`diagctl finalize` ended with status 1: disk is full/) }
  end

  def test_a_dumper_that_outlives_diagctl_in_its_worker_is_reaped_all_the_same
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

  def test_the_worker_may_be_killed_right_after_the_fork
    path = granting_binary(reports: { "heap_dump" => "snapshot" }, put: WAITING)
    _, status = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      Process.kill(:KILL, Process.pid) if Diagctl.capture(event: :worker_memory_limit).granted?
    RUBY
    assert_equal Signal.list["KILL"], status.termsig
    refute lease_free?, "the orphan holds the lease"
    go
    finalize_line
    assert_operator put("heap_dump").lines.size, :>, 1000
    eventually("the lease is free") { lease_free? }
  ensure
    go
  end
end
