# frozen_string_literal: true

require_relative "../helper"

# The running dumper, seen from outside: its descriptors, priority, signals and name.
class IsolationTest < Minitest::Test
  include Sandbox

  def teardown
    go
    eventually("the dumper ends") { !@agent.busy? } if @agent
    super
  end

  def with_dump
    @agent = agent(granting_binary(reports: { "heap_dump" => "snapshot" }, put: WAITING))
    @agent.poll
    eventually("put runs") { calls("put").any? }
    yield @agent.dumper.pid
  end

  def test_clients_get_end_of_file_and_the_port_is_free_during_the_dump
    client, server = UNIXSocket.pair
    # A C extension may leave a socket like this.
    server.close_on_exec = false
    listener = TCPServer.new("127.0.0.1", 0)
    port = listener.addr[1]
    pipe_out, pipe_in = IO.pipe
    with_dump do |pid|
      server.close
      listener.close
      pipe_in.close
      assert IO.select([client], nil, nil, 10), "end of file for the client"
      assert_nil client.read(1)
      assert IO.select([pipe_out], nil, nil, 10), "end of file for the reader of a pipe"
      TCPServer.new("127.0.0.1", port).close
      assert_nil Process.wait(pid, Process::WNOHANG), "the dump still runs"
    end
  ensure
    [client, pipe_out].compact.each(&:close)
  end

  def test_it_holds_only_the_lease_its_pipes_and_the_vms_descriptors
    skip "another user's /proc" unless Process.euid.zero?

    with_dump do |pid|
      open = open_files(pid)
      assert_equal ["/dev/null", "/dev/null", "/memfd:diagctl (deleted)"], open.values_at(0, 1, 2)
      assert_includes open.values, File.join(@store, "lease.lock")
      others = open.reject { |fd, target| fd < 3 || target.match?(%r{\Apipe:|\Aanon_inode:|lease\.lock\z|\A/memfd:diagctl|\A/dev/null\z}) }
      assert_empty others
    end
  end

  # Descriptors that no Ruby object knows: a C extension (a database driver, an event loop) opened them without O_CLOEXEC.
  def test_it_shares_no_socket_pipe_or_event_loop_with_its_worker
    skip "another user's /proc" unless Process.euid.zero?

    foreign = [c("socket", Socket::AF_UNIX, Socket::SOCK_STREAM, 0), c("socket", Socket::AF_INET, Socket::SOCK_DGRAM, 0),
      c("epoll_create1", 0), c("eventfd", 0, 0), c("inotify_init1", 0)]
    listener = UNIXServer.new(File.join(@dir, "socket"))
    pipe = IO.pipe
    with_dump do |pid|
      ours = open_files("self").slice(*foreign, listener.fileno, *pipe.map(&:fileno))
      assert_equal 8, ours.size
      theirs = open_files(pid)
      assert_empty theirs.values & ours.values.grep(/\A(socket|pipe):/)
      assert_empty(ours.select { |number, target| theirs[number] == target })
      assert_nil Process.wait(pid, Process::WNOHANG), "the dump still runs"
    end
  ensure
    foreign&.each { |number| IO.for_fd(number).close }
    [listener, *pipe].compact.each(&:close)
  end

  def c(name, *arguments)
    Diagctl::Libc.function(name, [Fiddle::TYPE_INT] * arguments.size, Fiddle::TYPE_INT).call(*arguments)
  end

  def open_files(pid)
    Dir.children("/proc/#{pid}/fd").each_with_object({}) do |number, found|
      found[number.to_i] = File.readlink("/proc/#{pid}/fd/#{number}")
    rescue Errno::ENOENT
      next # The descriptor used to read the directory.
    end
  end

  def test_it_is_killed_first_runs_nice_leads_its_own_group_and_has_no_traps
    Signal.trap("USR1") {}
    with_dump do |pid|
      assert_equal "1000\n", File.read("/proc/#{pid}/oom_score_adj")
      assert_equal 19, Process.getpriority(Process::PRIO_PROCESS, pid)
      assert_equal pid, Process.getpgid(pid)
      get = { "x86_64" => 252, "aarch64" => 31 }.fetch(RbConfig::CONFIG["host_cpu"])
      assert_equal Diagctl::Libc::IOPRIO_IDLE, c("syscall", get, Diagctl::Libc::IOPRIO_WHO_PROCESS, pid, 0, 0)
      assert_match(/diagctl: dumping #{Process.pid}/, File.read("/proc/#{pid}/cmdline"))
      caught = File.read("/proc/#{pid}/status")[/^SigCgt:\s+(\h+)/, 1].to_i(16)
      %w[USR1 TERM INT ALRM HUP].each do |name|
        assert_equal 0, caught & (1 << (Signal.list[name] - 1)), "SIG#{name} is still caught"
      end
    end
  ensure
    Signal.trap("USR1", "DEFAULT")
  end

  # The dumper ends the garbage collection that was running at the fork. An object freed by it may write to a connection that the
  # worker still uses: mysql2 closes a statement that way.
  def test_its_garbage_collection_writes_nothing_to_the_workers_connections
    path = granting_binary(reports: { "heap_dump" => "snapshot" })
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      database, CONNECTION = IO.pipe
      LAST_WORDS = proc { CONNECTION.syswrite("\#{Process.pid}\n") }
      def statement = Object.new.tap { |object| ObjectSpace.define_finalizer(object, LAST_WORDS) }
      GC.start
      GC.disable
      kept = []
      statements = Array.new(1000) { 200.times { kept << "x" * 50 } && statement }
      statements.clear
      GC.enable
      GC.start(immediate_mark: false, immediate_sweep: false)
      Diagctl.capture
      sleep 0.01 until Diagctl.instance_variable_get(:@agent).dumper.nil?
      GC.start
      CONNECTION.close
      speakers = database.read.split.map(&:to_i).uniq
      puts speakers == [Process.pid] ? "the worker alone" : "others too: \#{speakers.size}"
      puts kept.size
    RUBY
    assert_equal "the worker alone\n200000\n", out.lines.grep_v(/\[diagctl\]/).join
  end

  # Without memory for its first object, or for its stack, the child must not continue as a second worker.
  def test_a_dumper_that_cannot_start_ends
    path = granting_binary(reports: { "heap_dump" => "snapshot" })
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path })
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      worker = Process.pid
      Fiber.define_singleton_method(:new) { |**| raise FiberError, "can't alloc machine stack to fiber" }
      verdict = Diagctl.capture.verdict
      puts "\#{verdict}, went on in the worker: \#{Process.pid == worker}"
      sleep 0.01 until Diagctl.instance_variable_get(:@agent).dumper.nil?
    RUBY
    assert_equal "granted, went on in the worker: true\n", out.lines.grep_v(/\[diagctl\]/).join
  end

  def test_it_and_its_put_stay_on_one_processor
    with_dump do |pid|
      put = File.read("/proc/#{pid}/task/#{pid}/children").to_i
      refute_equal 0, put, "the dumper has no child"
      allowed = [pid, put].map { |process| File.read("/proc/#{process}/status")[/^Cpus_allowed_list:\s+(.+)/, 1] }
      assert_match(/\A\d+\z/, allowed.first)
      assert_equal 1, allowed.uniq.size, allowed
    end
  end

  def test_it_runs_no_code_of_the_application_when_it_exits
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
      sleep 0.01 until Diagctl.instance_variable_get(:@agent).dumper.nil?
    RUBY
    assert_equal "ensure true\nat_exit true\n", out.lines.grep_v(/\[diagctl\]/).join
  end
end
