# frozen_string_literal: true

require_relative "support/mounts"

# The lease as the kernel sees it: its holder, whatever happens to processes and to the lock file. Other cases are in tests/e2e:
# one_dumper_test.rb (killed), fork_test.rb (worker killed after the hand-over), protocol_test.rb (stale).
class LeaseTest < Torture::Case
  def test_when_the_parent_is_killed_its_child_keeps_the_lease_and_publishes
    dumper = granted("gc_stat")
    pipe, child = handed_over(dumper)
    wait_until("the child forked") { E2E::Processes.descendants(child).any? }
    E2E::Processes.signal(:KILL, child)
    Process.wait(child)
    assert_busy
    pipe.puts("go on")
    wait_until("the child's child has published") { captures.size == 1 }
    assert_free
  end

  def test_killing_the_child_frees_the_lease_at_once
    dumper = granted("gc_stat")
    _, child = handed_over(dumper)
    grandchild = wait_until("the child forked") { E2E::Processes.descendants(child).first }
    E2E::Processes.signal(:KILL, child)
    Process.wait(child)
    assert_busy
    E2E::Processes.signal(:KILL, grandchild.pid)
    wait_until("it is dead") { E2E::Processes.reap.then { !E2E::Processes.alive?(grandchild.pid) } }
    assert_free
  end

  def test_a_stopped_holder_keeps_the_lease_even_when_it_is_overdue_and_is_named
    configure(guards: "min_free_disk = \"1%\"\nmemory_headroom = 0.1\ndeadline = \"1s\"")
    dumper = granted("heap_dump")
    pipe, put = dumper.start_put("heap_dump")
    E2E::Processes.signal(:STOP, put)
    lease = wait_until("it is overdue") { status.then { |found| found if found["overdue_ms"] } }
    assert_match(/overdue by/, lease.fetch("summary"))
    assert_includes lease.fetch("holders"), { "pid" => put, "comm" => "diagctl" }
    assert_busy
    E2E::Processes.signal(:CONT, put)
    pipe.write(E2E.dump(""))
    pipe.close
    assert Process.wait2(put).last.success?
    assert dumper.finalize.ok?
    assert_free
  end

  # A process inherits the lease without knowing it, for example through system(3) in an application.
  def test_an_unrelated_process_that_holds_the_descriptor_is_named
    dumper = granted("gc_stat")
    stranger = Process.spawn("sleep", "1000", dumper.lease.fileno => dumper.lease.fileno)
    record = File.join(@store, "lease.json")
    dumper.close
    # The process that could have given it back is gone. The record then describes a grant that is over.
    File.write(record, JSON.generate(JSON.parse(File.read(record)).merge("ended" => true)))
    lease = wait_until("it is called leaked") { status.then { |found| found if found["leaked"] } }
    assert_equal [{ "pid" => stranger, "comm" => "sleep" }], lease.fetch("holders")
    assert_match(/leaked/, diagctl!("status").out)
    assert_includes diagctl!("status").out, stranger.to_s
    assert_busy
    E2E::Processes.signal(:KILL, stranger)
    Process.wait(stranger)
    assert_free
  end

  # `finalize` uses LOCK_UN, so a forgotten open copy does not keep the next dumper waiting.
  def test_a_forgotten_copy_does_not_keep_the_lease_after_finalize
    dumper = granted("gc_stat")
    Process.spawn("sleep", "1000", dumper.lease.fileno => dumper.lease.fileno)
    dumper.put("gc_stat", "{}")
    assert dumper.finalize.ok?
    assert_free
  end

  def test_another_pid_namespace_is_excluded_and_excludes
    needs_namespaces
    dumper = granted("gc_stat")
    assert_busy(-> { contained("unshare", "--pid", "--fork", "--mount", "--mount-proc", "sh", "-c", poll_in(@store)) })
    dumper.close
    diagctl!("request", "gc_stat", "--reason", "for the namespace")
    assert_held_by("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-c", "#{poll_in(@store, hold: true)}")
  end

  # Another container has its own root, pid namespace and path. Only the directory is shared.
  def test_another_container_that_shares_the_directory_is_excluded_and_excludes
    needs_namespaces
    dumper = granted("gc_stat")
    assert_busy(-> { contained(*container(poll_in("/mnt"))) })
    dumper.close
    diagctl!("request", "gc_stat", "--reason", "for the container")
    assert_held_by(*container(poll_in("/mnt", hold: true)))
  end

  def test_a_replaced_lock_file_ends_the_old_holders_rights_and_the_store_goes_on
    { "removed" => ->(path) { File.delete(path) }, "replaced" => ->(path) { File.write("#{path}.new", "").then { File.rename("#{path}.new", path) } } }
      .each do |what, act|
      stale = granted("gc_stat")
      act.(File.join(@store, "lease.lock"))
      results = [stale.put("gc_stat", "stale"), stale.finalize]
      results.each do |result|
        assert_equal 1, result.status, "#{what}: #{result}"
        assert_match(/lease\.lock/, result.err)
      end
      before = captures.size
      id = store_capture("gc_stat" => "current")
      assert_equal before + 1, captures.size, what
      refute stale.finalize.ok?
      assert_equal "current", diagctl!("fetch", "#{id}:gc_stat", "-o", "-").out
      assert_nothing_staged
      stale.close
    end
  end

  # Its reports under the lease were published by the next grant, and nothing is added.
  def test_a_stale_generation_cannot_commit_even_with_the_lock
    stale = granted("gc_stat", "threads")
    stale.put("gc_stat", "before")
    stale.lease.flock(File::LOCK_UN)
    store_capture("gc_stat" => "current")
    stale.lease.flock(File::LOCK_EX | File::LOCK_NB) or flunk "the lease is not free"
    assert_equal 1, stale.put("threads", "stale").status
    result = stale.finalize
    assert_equal 1, result.status, result
    stale.close
    assert_equal([true, false], meta(stale.capture)["reports"].map { |report| report["error"].nil? })
    assert_equal(%w[current before], captures.map { |capture| diagctl!("fetch", capture["id"], "gc_stat", "-o", "-").out })
  end

  private

  def needs_namespaces
    why = Torture::Mounts.refusal
    skip("namespaces: #{why}") if why
  end

  def status = diagctl!("status", "--json").json.fetch("lease")

  # Starts a child with a child of its own, which gets the lease, waits for a line, and then puts and finalizes.
  def handed_over(dumper)
    reader, writer = IO.pipe
    child = fork do
      writer.close
      grandchild = fork do
        reader.gets
        dumper.put("gc_stat", "{}")
        dumper.finalize
      ensure
        exit!(0)
      end
      dumper.close
      Process.wait(grandchild)
    ensure
      exit!(0)
    end
    reader.close
    dumper.close
    [writer, child]
  end

  def assert_busy(poll = nil)
    diagctl!("request", "gc_stat", "--reason", "another")
    result = poll ? poll.call : holder.acquire
    assert_equal 10, result.status, result
    assert_equal "busy", result.json.fetch("verdict"), result
  end

  def assert_free
    wait_until("the lease is free", deadline: 5) { !status.fetch("taken") }
    dumper = granted("gc_stat")
    dumper.put("gc_stat", "{}")
    assert dumper.finalize.ok?
    dumper.close
  end

  def assert_held_by(*command)
    pid = Process.spawn(env, *command, out: path = File.join(@root, "answer"), unsetenv_others: true, pgroup: true)
    wait_until("it answers") { File.size?(path) }
    assert_equal "granted", JSON.parse(File.readlines(path).first).fetch("verdict")
    assert_busy
    assert status.fetch("taken")
    E2E::Processes.signal(:KILL, *E2E::Processes.descendants(pid).map(&:pid), pid)
    Process.wait(pid)
    assert_free
  end

  # Polls from a shell that is process 1 of its own namespace.
  def poll_in(dir, hold: false)
    poll = "#{E2E::BIN} --dir #{dir} acquire --lease-fd 7 --pid 1"
    "exec 7<>#{dir}/lease.lock; #{hold ? "#{poll}; sleep 1000" : "exec #{poll}"}"
  end

  def contained(*command) = E2E::Command.run(*command, env: env)

  def container(script)
    root = File.join(@root, "container")
    FileUtils.mkdir_p(root)
    prepare = "mount --bind / #{root} && mount --bind #{@store} #{root}/mnt && mount -t proc proc #{root}/proc && mount -t tmpfs none #{root}/run"
    config = "cp #{config_path} #{root}/run/diagctl.toml && export DIAGCTL_CONFIG=/run/diagctl.toml"
    ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", "#{prepare} && #{config} && exec chroot #{root} sh -c '#{script}'"]
  end
end
