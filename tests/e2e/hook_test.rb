# frozen_string_literal: true

require "etc"
require "set"
require_relative "support/e2e"
require_relative "support/hook_events"

# The command of [on_capture]: told of each capture, and never in anybody's way.
class HookTest < E2E::Case
  include E2E::HookEvents

  # Writes what it got, and what it is, to files named after the capture.
  LOOK = <<~'SH'
    #!/bin/sh
    cd "$(dirname "$0")"
    cat > "$DIAGCTL_CAPTURE.json"
    ls /proc/self/fd > "$DIAGCTL_CAPTURE.fds"
    { echo "arguments $*"; echo "cwd $(readlink /proc/self/cwd)"; echo "uid $(id -u)"; echo "dir $DIAGCTL_DIR"
      echo "nice $(cut -d' ' -f19 /proc/$$/stat)"; echo "oom $(cat /proc/$$/oom_score_adj)"
      echo "session $(cut -d' ' -f6 /proc/$$/stat)"; } > "$DIAGCTL_CAPTURE.tmp"
    mv "$DIAGCTL_CAPTURE.tmp" "$DIAGCTL_CAPTURE.txt"
  SH

  def test_the_command_gets_the_public_record_and_nothing_of_the_worker
    hook(LOOK, '"--urgent"')
    server = polling_puma
    ids = [request("gc_stat"), request("heap_dump", "gc_stat")]
    ids.each do |id|
      seen = told(id)
      assert_equal diagctl!("show", id, "--json").json, JSON.parse(File.read(file("#{id}.json")))
      assert_equal %w[--urgent 19 1000], seen.values_at("arguments", "nice", "oom")
      assert_equal @store, seen["dir"]
      refute_equal session(server.pid), seen["session"]
      # The last one is the directory that `ls` reads.
      assert_equal %w[0 1 2 3], File.readlines(file("#{id}.fds"), chomp: true)
      assert_equal ["hook", "command"], event_of(id).values_at("event", "cause")
    end
    assert_empty E2E::Processes.descendants_but_polls(server.pid), "the worker has a child"
    metrics = diagctl!("metrics").out.lines(chomp: true)
    assert_includes metrics, 'diagctl_hooks_total{hook="command",outcome="ok"} 2'
    assert_includes metrics, "diagctl_hooks_waiting 0"
    server.stop
  end

  def test_a_hook_that_hangs_holds_up_nothing_and_is_ended
    hook("#!/bin/sh\nsleep 600 & setsid sleep 601 &\nsleep 602\n", timeout: "4s")
    server = polling_puma
    first = request("gc_stat")
    wait_until("the hook runs") { sleeping.any? }
    second = request("heap_dump")
    assert_empty sleeping.select { |process| E2E::Processes.descendants(server.pid).include?(process) }
    assert_equal false, diagctl!("status", "--json").json.dig("lease", "taken")
    assert_match(/\Aok/, server.get("/"))
    [first, second].each do |id|
      assert_equal "hook_failed", event_of(id)["event"]
      assert_match(/command: .*hook was killed after its time-out of 4s/, event_of(id)["reason"])
    end
    wait_until("everything of the hook is gone") { sleeping.empty? }
    assert_includes diagctl!("metrics").out, 'diagctl_hooks_total{hook="command",outcome="failed"} 2'
    server.stop
  end

  def test_every_way_to_fail_is_an_event_and_the_capture_is_whole
    server = polling_puma(" ")
    { "#!/bin/sh\necho this went wrong >&2\nexit 1\n" => /hook ended with exit status: 1: this went wrong/,
      "#!/bin/sh\nhead -c 50000000 /dev/zero | tr '\\0' y\nexit 3\n" => /exit status: 3: yyy/,
      # Neither reaches a terminal or the store as it is.
      "#!/bin/sh\nprintf '\\033]0;mine\\007\\nAGE-SECRET-KEY-1QQQQ s3://k:s3cret@b' >&2\nexit 4\n" =>
        /exit status: 4: \\u\{1b\}\]0;mine\\u\{7\} \(a secret key\) s3:\/\/\(hidden\)@b\z/,
      "#!/bin/sh\nkill -9 $$\n" => /signal: 9/,
      "#!/no/such/interpreter\n" => /cannot be run: No such file/ }.each do |script, expected|
      hook(script)
      id = request("gc_stat")
      assert_match expected, event_of(id)["reason"]
      assert diagctl("verify", id).ok?
    end
    File.chmod(0o644, file("hook"))
    assert_match(/cannot be run: Permission denied/, event_of(request("gc_stat"))["reason"])
    File.delete(file("hook"))
    assert_match(/cannot be run: No such file/, event_of(request("gc_stat"))["reason"])
    assert_match(/\Aok/, server.get("/"))
    server.stop
  end

  def test_a_worker_that_is_killed_right_after_its_capture_leaves_the_hook_alone
    hook("#!/bin/sh\ncd \"$(dirname \"$0\")\"\ntouch begun\nuntil [ -e go ]; do sleep 0.02; done\ntouch \"ended-$DIAGCTL_CAPTURE\"\n")
    server = polling_puma
    id = request("gc_stat")
    wait_until("the hook runs") { File.exist?(file("begun")) }
    Process.kill(:KILL, server.pid)
    wait_until("the worker is gone") { E2E::Processes.reap || !E2E::Processes.alive?(server.pid) }
    File.write(file("go"), "")
    wait_until("the hook ended by itself") { File.exist?(file("ended-#{id}")) }
    assert_equal "hook", event_of(id)["event"]
  end

  def test_captures_in_quick_succession_are_told_one_after_the_other
    hook("#!/bin/sh\ncd \"$(dirname \"$0\")\"\nmkdir busy || echo overlap >> faults\nsleep 0.1\nrmdir busy\necho $DIAGCTL_CAPTURE >> told\n")
    ids = Array.new(6) { run_capture }
    wait_until("all are told") { File.exist?(file("told")) && File.readlines(file("told")).size == 6 }
    assert_equal ids, File.readlines(file("told"), chomp: true)
    refute File.exist?(file("faults"))
  end

  # The next capture tells both, and ends what the killed hook has left.
  def test_a_capture_whose_hook_was_killed_is_told_with_the_next_one
    hook("#!/bin/sh\ncd \"$(dirname \"$0\")\"\n[ -e pass ] || sleep 600\necho $DIAGCTL_CAPTURE >> told\n")
    id = run_capture
    runner = wait_until("the hook runs") { sleeping.any? && E2E::Processes.descendants.find { |process| process.binary?("after-capture") } }
    Process.kill(:KILL, runner.pid)
    wait_until("the hook died with it") { E2E::Processes.reap || E2E::Processes.descendants.none? { |process| process.argv.include?(file("hook")) } }
    assert_includes diagctl!("metrics").out, "diagctl_hooks_waiting 1\n"
    File.write(file("pass"), "")
    ids = [id, run_capture]
    wait_until("both are told") { File.exist?(file("told")) && File.readlines(file("told"), chomp: true) == ids }
    assert_empty sleeping
  end

  def test_a_hook_that_captures_is_not_told_of_that
    hook("#!/bin/sh\necho told >> \"$(dirname \"$0\")/told\"\n#{E2E::BIN} run --report again -- echo x\n")
    first = run_capture
    assert_equal "hook", event_of(first)["event"]
    wait_until("two captures") { captures.size == 2 }
    wait_until("nothing runs") { E2E::Processes.reap || E2E::Processes.descendants.empty? }
    assert_equal 1, File.readlines(file("told")).size
  end

  def test_only_the_rules_that_are_named_are_told_and_a_poll_starts_nothing
    hook(LOOK, rules: '["heap-*"]')
    id = run_capture
    # A memory rule polls at each interval, and never captures here.
    File.write(config_path, rule("never", 'memory_usage = { of = "process", metric = "rss", above = "900GiB" }', %w[gc_stat]), mode: "a")
    server = polling_puma
    FileUtils.mkdir_p(File.join(@store, "hooks"), mode: 0o700)
    File.write(File.join(@store, "hooks", id), "0")
    polls = Set.new
    wait_until("some polls") { polls.add(File.mtime(Dir.glob(File.join(@store, "samples", "*")).first)).size > 5 }
    assert File.exist?(File.join(@store, "hooks", id)), "a poll ran the hook"
    refute File.exist?(file("#{id}.txt"))
    server.stop
  end

  def test_root_runs_the_hook_as_the_owner_of_the_store
    skip("needs root") unless Process.euid.zero?
    hook(LOOK)
    FileUtils.mkdir_p(@store, mode: 0o700)
    FileUtils.chown(65_534, 65_534, [@root, @store])
    id = run_capture
    assert_equal "65534", told(id)["uid"]
  end

  def test_a_shell_without_the_configuration_tells_the_hook_of_the_workers
    hook(LOOK)
    server = polling_puma
    id = diagctl!("run", "--report", "out", "--", "echo", "x", env: env(DIAGCTL_CONFIG: nil)).out.chomp
    told(id)
    assert_equal id, JSON.parse(File.read(file("#{id}.json"))).fetch("id")
    server.stop
  end

  # The application is the first process of many containers, and so the parent of all orphans.
  def test_a_worker_that_is_the_first_process_of_its_container_collects_no_zombies
    skip("no pid namespace can be made here") unless system("unshare", "--pid", "--fork", "--mount-proc", "true", err: File::NULL)
    hook(LOOK)
    server = puma(wrapper: %w[unshare --pid --fork --kill-child --mount-proc])
    wait_until("a first poll") { Dir.glob(File.join(@store, "samples", "*")).any? }
    4.times do |n|
      told(request("gc_stat", *("heap_dump" if n.odd?)))
      wait_until("it has ended") { E2E::Processes.descendants.none? { |process| process.argv.include?("after-capture") } }
    end
    first = E2E::Processes.descendants(server.pid).find { |process| process.ppid == server.pid }.pid
    zombies = Dir["/proc/[0-9]*/stat"].count { |path| File.read(path).include?("(diagctl-after) Z #{first} ") rescue false }
    assert_operator zombies, :<=, 1
    E2E::Processes.signal(:KILL, server.pid)
  end

  def test_members_of_the_group_see_how_it_went
    skip("needs root") unless Process.euid.zero?
    hook("#!/bin/sh\nexit 7\n")
    File.write(config_path, "group = \"daemon\"\n#{File.read(config_path)}")
    id = run_capture
    event_of(id)
    FileUtils.install(E2E::BIN, file("diagctl"), mode: 0o755)
    as_member = %w[setpriv --reuid 65534 --regid 65534 --groups] + [Etc.getgrnam("daemon").gid.to_s]
    out = IO.popen(env, [*as_member, file("diagctl"), "status", "--json"], unsetenv_others: true, &:read)
    assert_match(/exit status: 7/, JSON.parse(out).dig("hook", "failure"))
    assert_equal 0o2750, File.stat(File.join(@store, "hooks")).mode & 0o7777
  end

  private

  def hook(script, *arguments, timeout: "30s", rules: '["*"]')
    File.write(file("hook"), script)
    File.chmod(0o755, file("hook"))
    command = [file("hook").inspect, *arguments].join(", ")
    configure(rule("asked", 'on_demand = { min_interval = "1s" }', %w[gc_stat]),
      on_capture: "command = [#{command}]\ntimeout = \"#{timeout}\"\nrules = #{rules}")
  end

  def polling_puma(script = nil)
    hook("#!/bin/sh\n") if script
    puma.tap { wait_until("a first poll") { Dir.glob(File.join(@store, "samples", "*")).any? } }
  end

  def request(*reports) = diagctl!("request", *reports, "--reason", "a test", "--wait").out[/\d{8}T\d+Z-\h{8}/]

  def run_capture = diagctl!("run", "--report", "out", "--", "echo", "x").out.chomp

  def file(name) = File.join(@root, name)

  def told(id)
    wait_until("the hook is told of #{id}", tell: -> { diagctl("events").out }) { File.exist?(file("#{id}.txt")) }
    File.readlines(file("#{id}.txt"), chomp: true).to_h { |line| line.split(" ", 2) }
  end

  def session(pid) = File.read("/proc/#{pid}/stat").rpartition(") ").last.split[3]

  def sleeping = E2E::Processes.descendants.select { |process| process.argv.first == "sleep" && process.argv.last.to_i >= 600 }
end
