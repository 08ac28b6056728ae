# frozen_string_literal: true

require_relative "helper"

class DumpTest < Minitest::Test
  include Sandbox

  CAPTURE = "20261122T101530123Z-7f3a9c2e"

  def teardown
    # Every child must be reaped by the code under test.
    eventually("the dumper ends", 15) { !@agent.busy? } if @agent
    super
  end

  def capture(...)
    @agent = agent(granting_binary(...))
    @agent.poll
  end

  def finalize_line
    eventually("finalize") { calls("finalize").first }
  end

  def put(name)
    File.binread(File.join(@store, "put.#{name}"))
  end

  def test_a_capture_without_snapshot_does_not_fork
    @config.report(:cache) { |io| io.write("42 entries") }
    result = capture(reports: { "gc_stat" => "inline", "threads" => "inline", "ruby" => "inline", "cache" => "inline" })
    assert_equal ["granted", CAPTURE], [result.verdict, result.capture]
    assert_nil @agent.child
    assert_equal Process.pid, JSON.parse(put("ruby")).fetch("pid")
    assert_equal "42 entries", put("cache")
    assert_match(/--set=cost.pause_ms=[\d.]+ .*--set=versions.ruby=#{RUBY_VERSION}/, finalize_line)
    refute_match(/fork_ms|--failed/, finalize_line)
    assert lease_free?
    assert_match(/\Acapture #{CAPTURE} \(r\) stored after/, @logger.lines.last)
  end

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

  def test_a_report_that_cannot_be_made_is_named_and_costs_no_other
    @config.report(:raises) { |_| raise "secret\nline" }
    @config.report(:empty) { |_| }
    capture(reports: { "raises" => "inline", "empty" => "inline", "nope" => "inline", "puma" => "inline", "threads" => "inline" })
    line = finalize_line
    assert_includes line, "--failed=raises=report raises raised RuntimeError: secret line"
    assert_includes line, "--failed=empty=it wrote nothing"
    assert_includes line, "--failed=nope=not available in this process"
    assert_includes line, "--failed=puma=not available in this process"
    assert_equal ["threads"], calls("put").map { |call| call.split.last }
  end

  def test_a_report_that_hangs_does_not_keep_the_lease
    @config.callback_timeout = 0.2
    @config.report(:hangs) { |_| sleep }
    capture(reports: { "hangs" => "inline" })
    assert_includes finalize_line, "--failed=hangs=report hangs did not return within 0.2 s"
    assert lease_free?
  ensure
    Diagctl::Callback.running.delete("report hangs")&.kill
  end

  def test_no_inline_report_is_begun_after_the_budget
    @config.inline_budget = 0.05
    @config.report(:slow) { |io| sleep(0.1) && io.write("x") }
    capture(reports: { "slow" => "inline", "threads" => "inline" })
    assert_includes finalize_line, "--failed=threads=not begun: the inline reports before it took more than 0.05 s"
    assert_equal "x", put("slow")
  end

  def test_a_put_that_fails_is_named_with_its_own_words
    capture(reports: { "heap_dump" => "snapshot" }, put: "head -c 100 >/dev/null; echo 'no space left' >&2; exit 1")
    assert_match(/--failed=heap_dump=`diagctl put` ended with status 1: no space left/, finalize_line)
  end

  def test_in_process_does_not_fork
    capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process")
    assert_nil @agent.child
    assert_operator put("heap_dump").lines.size, :>, 1000
    refute_match(/fork_ms/, finalize_line)
  end

  def test_in_process_a_put_that_stops_reading_is_killed_at_the_deadline
    started = Diagctl::Clock.now
    capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", deadline: 1, put: "exec sleep 60")
    assert_operator Diagctl::Clock.now - started, :<, 8
    assert_match(/--failed=heap_dump=`diagctl put` was killed by SIGKILL/, finalize_line)
  end

  def test_in_process_a_put_ends_with_the_thread_that_fed_it
    thread = Thread.new do
      capture(reports: { "heap_dump" => "snapshot" }, snapshot: "in_process", put: 'echo $$ > "$dir/pid"; exec sleep 60')
    end
    path = File.join(@store, "pid")
    pid = eventually("put runs") { File.size?(path) && File.read(path).to_i }
    eventually("the pipe is full") { thread.stop? }
    thread.kill.join
    assert_raises(Errno::ECHILD) { Process.wait(pid) }
    assert lease_free?
    refute(Thread.list.any? { |left| left.name == "diagctl watchdog" && left.join(1).nil? })
  end

  def test_the_lease_is_the_dumpers_and_ends_with_it
    capture(reports: { "heap_dump" => "snapshot" }, put: "exec sleep 30")
    child = eventually("the dumper") { @agent.child }
    eventually("put runs") { calls("put").any? }
    refute lease_free?, "the dumper holds the lease"
    Process.kill(:KILL, -child.pid)
    eventually("the lease is free") { lease_free? }
    eventually("told") { !@agent.busy? && @logger.lines.any?(/was killed by SIGKILL/) }
  end

  def test_no_poll_while_the_own_dumper_runs
    capture(reports: { "heap_dump" => "snapshot" }, put: "sleep 1; cat >/dev/null")
    polls = calls("acquire").size
    assert_equal "busy", @agent.poll.verdict
    assert_equal polls, calls("acquire").size
  end

  def test_the_kernel_ends_a_dumper_at_its_deadline
    capture(reports: { "heap_dump" => "snapshot" }, deadline: 1, put: "exec sleep 4")
    eventually("killed by its alarm", 10) { !@agent.busy? && @logger.lines.any?(/was killed by SIGALRM/) }
    assert_empty calls("finalize")
  end

  def test_a_dumper_that_outlives_its_alarm_is_killed_by_the_worker_with_its_put
    pid = fork { exec("sh", "-c", "trap '' ALRM TERM; sleep 30 & sleep 30", pgroup: true, close_others: true) }
    answer = Struct.new(:capture, :rule).new("id", "r")
    child = Diagctl::Child.new(pid, answer, nil, Diagctl::Clock.now + 0.5)
    eventually("its group") { Process.getpgid(pid) == pid && Dir["/proc/[0-9]*/stat"].count { |stat| group(stat) == pid } >= 3 }
    assert_nil child.reap
    outcome = eventually("killed") { child.reap }
    assert_equal :timeout, outcome.kind
    eventually("the whole group is gone") { Dir["/proc/[0-9]*/stat"].none? { |stat| group(stat) == pid } }
  end

  def group(stat)
    File.read(stat).rpartition(")").last.split[2].to_i
  rescue SystemCallError
    nil
  end

  def test_a_failed_fork_gives_the_grant_back
    error = without_fork { assert_raises(Diagctl::Problem) { capture(reports: { "heap_dump" => "snapshot" }) } }
    assert_match(/capture #{CAPTURE} was given back.*fork/, error.message)
    assert_match(/\Aabort --lease-fd=3 #{CAPTURE} --reason=the grant could not be used: Errno::EAGAIN/, calls("abort").first)
    assert lease_free?
  end

  # By hand: the `stub` of Minitest is a gem of its own from Minitest 6 on.
  def without_fork
    raw_fork = Diagctl::ForkGuard.method(:raw_fork)
    Diagctl::ForkGuard.define_singleton_method(:raw_fork) { raise Errno::EAGAIN, "fork(2)" }
    yield
  ensure
    Diagctl::ForkGuard.define_singleton_method(:raw_fork, raw_fork)
  end

  def test_what_finalize_says_reaches_the_log
    capture(reports: { "heap_dump" => "snapshot" }, finalize: "echo 'disk is full' >&2; exit 1")
    eventually("told") { !@agent.busy? && @logger.lines.any?(/`diagctl finalize` ended with status 1: disk is full/) }
  end

  def test_the_worker_may_be_killed_right_after_the_fork
    path = granting_binary(reports: { "heap_dump" => "snapshot" }, put: 'sleep 1; cat > "$dir/put.$3"')
    _, status = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      Process.kill(:KILL, Process.pid) if Diagctl.capture(event: :worker_memory_limit).granted?
    RUBY
    assert_equal Signal.list["KILL"], status.termsig
    refute lease_free?, "the orphan holds the lease"
    finalize_line
    assert_operator put("heap_dump").lines.size, :>, 1000
    eventually("the lease is free") { lease_free? }
  end
end

# What the forked dumper holds, looked at from outside while it runs.
class ChildHygieneTest < Minitest::Test
  include Sandbox

  def teardown
    eventually("the dumper ends", 15) { !@agent.busy? } if @agent
    super
  end

  def with_dump(put: 'sleep 1; cat >/dev/null')
    @agent = agent(granting_binary(reports: { "heap_dump" => "snapshot" }, put: put))
    @agent.poll
    eventually("put runs") { calls("put").any? }
    yield @agent.child.pid
  end

  def test_a_client_gets_its_end_of_file_and_the_port_is_free_while_the_dump_runs
    client, server = UNIXSocket.pair
    # As a C extension may open it.
    server.close_on_exec = false
    listener = TCPServer.new("127.0.0.1", 0)
    port = listener.addr[1]
    pipe_out, pipe_in = IO.pipe
    with_dump do |pid|
      server.close
      listener.close
      pipe_in.close
      assert IO.select([client], nil, nil, 0.5), "end of file for the client"
      assert_nil client.read(1)
      assert IO.select([pipe_out], nil, nil, 0.5), "end of file for the reader of a pipe"
      TCPServer.new("127.0.0.1", port).close
      assert_nil Process.wait(pid, Process::WNOHANG), "the dump still runs"
    end
  ensure
    [client, pipe_out].compact.each(&:close)
  end

  def test_it_holds_the_lease_its_pipes_and_what_the_vm_reserves_only
    skip "another user's /proc" unless Process.euid.zero?

    with_dump do |pid|
      open = Dir.children("/proc/#{pid}/fd").to_h { |fd| [fd.to_i, File.readlink("/proc/#{pid}/fd/#{fd}")] }
      assert_equal ["/dev/null", "/dev/null", "/memfd:diagctl (deleted)"], open.values_at(0, 1, 2)
      assert_includes open.values, File.join(@store, "lease.lock")
      others = open.reject { |fd, target| fd < 3 || target.match?(/\Apipe:|\Aanon_inode:|lease\.lock\z/) }
      assert_empty others
    end
  end

  def test_it_is_first_to_be_killed_nice_in_its_own_group_and_without_the_workers_traps
    Signal.trap("USR1") {}
    with_dump do |pid|
      assert_equal "1000\n", File.read("/proc/#{pid}/oom_score_adj")
      assert_equal 19, Process.getpriority(Process::PRIO_PROCESS, pid)
      assert_equal pid, Process.getpgid(pid)
      assert_match(/diagctl: dumping #{Process.pid}/, File.read("/proc/#{pid}/cmdline"))
      caught = File.read("/proc/#{pid}/status")[/^SigCgt:\s+(\h+)/, 1].to_i(16)
      %w[USR1 TERM INT ALRM HUP].each do |name|
        assert_equal 0, caught & (1 << (Signal.list[name] - 1)), "SIG#{name} is still caught"
      end
    end
  ensure
    Signal.trap("USR1", "DEFAULT")
  end

  def test_it_runs_no_code_of_the_application_on_its_way_out
    path = granting_binary(reports: { "heap_dump" => "snapshot" }, put: "cat >/dev/null; exit 1")
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      at_exit { puts "at_exit \#{Process.pid == #{"$worker"}}" }
      $worker = Process.pid
      Diagctl.start
      begin
        Diagctl.capture
      ensure
        puts "ensure \#{Process.pid == $worker}"
      end
      sleep 1
    RUBY
    assert_equal "ensure true\nat_exit true\n", out.lines.grep_v(/\[diagctl\]/).join
  end
end
