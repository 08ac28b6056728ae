# frozen_string_literal: true

require "digest"
require "etc"
require_relative "support/e2e"

# `doctor` reports problems before they stop captures, and changes nothing. Conditions that need another kernel or cgroup are
# covered by table tests beside the code.
class DoctorTest < E2E::Case
  def test_healthy_store_passes_and_nothing_is_changed
    store_capture
    before = tree
    result = diagctl("doctor", "--json")
    assert_equal 0, result.status, result
    report = result.json
    assert_equal [1, true, 0, @store], report.values_at("schema", "ok", "failed", "dir")
    report.fetch("checks").each do |check|
      assert_equal %w[id status message hint observed], check.keys, check
      assert_includes %w[ok warn fail skip], check["status"]
      assert_equal %w[warn fail].include?(check["status"]), !check["hint"].nil?, check
    end
    %w[store.directory store.lock store.format store.state lease clock].each { |id| assert_equal "ok", status_of(report, id), id }
    assert_equal report["checks"].map { |check| check["id"] }.uniq.size, report["checks"].size
    assert_equal before, tree
  end

  def test_missing_store_is_reported_and_not_created
    result = diagctl("doctor")
    assert_equal 0, result.status, result
    assert_includes result.out, "install -d -m 0700 -o USER #{@store}"
    refute_path_exists @store
    assert_fails("store.directory", /parent/, "doctor", "--dir", "#{@root}/never/made")
    refute_path_exists "#{@root}/never"
  end

  # As docs/doctor.md has it.
  def test_encryption_fails_with_a_good_configuration_and_is_left_to_the_file_without_one
    broken = { encrypt: 'recipients = ["age1"]' }
    configure(**broken)
    report = diagctl("doctor", "--json").json
    assert_equal ["fail", nil], [status_of(report, "config.file"), status_of(report, "encryption")]
    configure
    store_capture
    assert_nil status_of(diagctl("doctor", "--json").json, "encryption"), "nothing is encrypted"
    configure(**broken)
    assert_fails("encryption", /reports cannot be encrypted/)
  end

  def test_text_is_coloured_only_on_a_terminal
    refute_includes diagctl("doctor").out, "\e"
    require "pty"
    { {} => true, { "NO_COLOR" => "1" } => false }.each do |more, coloured|
      PTY.open do |terminal, input|
        pid = Process.spawn(env.merge("TERM" => "xterm", **more), E2E::BIN, "doctor", out: input, unsetenv_others: true)
        input.close
        text = read_to_the_end(terminal)
        Process.wait(pid)
        assert_equal coloured, text.include?("\e[3"), text
      end
    end
  end

  def test_broken_configuration_and_environment
    store_capture
    before = tree
    File.write(config_path, "colour = 1\n")
    assert_fails("config.file", /colour/)
    configure
    assert_fails("config.file", /DIAGCTL_ENABLED/, env: env(DIAGCTL_ENABLED: "maybe"))
    assert_fails("config.file", /nowhere/, env: env(DIAGCTL_CONFIG: "#{@root}/nowhere"))
    assert_equal before, tree
  end

  def test_switches_are_warnings
    store_capture
    assert_warns("switch", /off/, env: env(DIAGCTL_ENABLED: "0"))
    # A person's shell has no switch. The processes that poll count.
    found = check_of(diagctl("doctor", "--json", env: env(DIAGCTL_ENABLED: nil)).json, "switch")
    assert_equal ["ok", "off in this environment, but on in the processes that poll"], found.values_at("status", "message")
    diagctl!("pause")
    assert_warns("pause", /paused by/)
  end

  def test_modes_links_and_foreign_entries_in_place_of_the_store
    store_capture
    # Its owner's next command that writes closes it. What is no store yet stays as it is.
    File.chmod(0o770, @store)
    assert_warns("store.directory", /0770/)
    assert_equal 0o770, File.stat(@store).mode & 0o7777
    File.rename(File.join(@store, "FORMAT"), File.join(@root, "FORMAT"))
    assert_fails("store.directory", /0770/)
    File.rename(File.join(@root, "FORMAT"), File.join(@store, "FORMAT"))
    File.chmod(0o700, @store)
    File.rename(@store, "#{@store}.real")
    File.symlink("#{@store}.real", @store)
    assert_fails("store.directory", /symbolic link/)
    File.unlink(@store)
    File.write(@store, "")
    assert_fails("store.directory", /not a directory/)
    File.unlink(@store)
    FileUtils.mkdir_p("#{@store}/photos", mode: 0o700)
    File.chmod(0o700, @store)
    assert_fails("store.format", /photos/)
  end

  def test_world_writable_parent
    FileUtils.mkdir_p("#{@root}/open")
    File.chmod(0o777, "#{@root}/open")
    assert_fails("store.parents", /world-writable/, "doctor", "--dir", "#{@root}/open/store")
    File.chmod(0o1777, "#{@root}/open")
    assert_warns("store.parents", /before the workers/, "--dir", "#{@root}/open/store")
  end

  def test_store_of_another_user
    skip("only root can make one") unless Process.euid.zero?
    store_capture
    File.chmod(0o755, @store)
    result = as_nobody("doctor", "--json")
    assert_equal 1, result.status, result
    assert_match(/owned by uid 0, and this is uid 65534/, check_of(result.json, "store.directory")["message"])
    FileUtils.rm_rf(@store)
    FileUtils.mkdir_p(@store, mode: 0o700)
    File.chown(65_534, 65_534, @store)
    assert_equal 0, as_nobody("doctor").status
    assert_match(/workers must run as that user/, check_of(diagctl("doctor", "--json").json, "store.directory")["message"])
  end

  def test_newer_damaged_and_replaced_files
    store_capture
    File.write("#{@store}/state.json", "{torn")
    assert_warns("store.state", /damaged/)
    File.unlink("#{@store}/state.json")
    Dir.mkdir("#{@store}/state.json")
    assert_fails("store.state", /regular file/)
    Dir.rmdir("#{@store}/state.json")
    File.write("#{@store}/state.json", '{"schema":99}')
    assert_fails("store.state", /version 99/)
    File.unlink("#{@store}/state.json")
    FileUtils.mkdir_p("#{@store}/quarantine/odd")
    assert_warns("store.quarantine", /1 entry/)
    File.unlink("#{@store}/lease.lock")
    File.symlink("/dev/null", "#{@store}/lease.lock")
    assert_fails("store.lock", /lease/)
    assert_fails("store.files", /lease\.lock/)
    File.write("#{@store}/FORMAT", "2\n")
    assert_fails("store.format", /format 2/)
  end

  def test_damaged_capture_is_named
    id = store_capture
    File.unlink("#{@store}/index.jsonl")
    File.write("#{@store}/reports/#{id}/meta.json", "{")
    assert_warns("store.captures", /#{id}/)
  end

  def test_full_disk_and_no_inodes
    within_mount("size=1m") do
      diagctl!("request", "gc_stat", "--reason", "x")
      assert_warns("store.filesystem", /tmpfs/)
      File.write("#{@store}/filler", "x" * 1_030_000)
      configure(guards: 'min_free_disk = "10%"')
      assert_fails("store.space", /min_free_disk/)
    end
    within_mount("size=1m,nr_inodes=60") do
      diagctl!("request", "gc_stat", "--reason", "x")
      assert_fails("store.inodes", /inodes are free/)
    end
  end

  def test_read_only_mount
    within_mount("size=1m") do
      diagctl!("request", "gc_stat", "--reason", "x")
      mount("-o", "remount,ro", @store)
      assert_fails("store.writable", /read-only/)
    end
  end

  def test_leaked_lease_names_its_holder
    dumper = granted("gc_stat")
    dumper.put("gc_stat", "{}")
    File.write("#{@store}/lease.json", JSON.generate(JSON.parse(File.read("#{@store}/lease.json")).merge("ended" => true)))
    assert_fails("lease", /leaked.*#{Process.pid}/)
    dumper.close
    result = diagctl("doctor", "--json")
    assert_equal "ok", status_of(result.json, "lease"), result
  end

  def test_process_that_inherited_the_lease_is_distinguished_from_the_dumper
    dumper = granted("gc_stat")
    assert_equal "ok", status_of(diagctl("doctor", "--json").json, "lease"), "its own process"
    # An orphan: its parent is gone, and the lease was granted to another process.
    stranger = spawn("sh", "-c", "sleep 600 & echo $!; exec sleep 0", dumper.lease => dumper.lease, out: "#{@root}/pid")
    Process.wait(stranger)
    pid = File.read("#{@root}/pid").to_i
    # The tests adopt orphans, so the stranger would descend from this process. The record is therefore changed to name another
    # process.
    record = JSON.parse(File.read("#{@store}/lease.json"))
    other = spawn("sleep", "600")
    start = File.read("/proc/#{other}/stat").rpartition(") ").last.split[19].to_i
    File.write("#{@store}/lease.json", JSON.generate(record.merge("pid" => other, "start_ticks" => start)))
    assert_warns("lease", /#{pid} \(sleep\)/)
  end

  def test_polling_process_is_examined
    holder.acquire
    report = diagctl("doctor", "--json").json
    assert_equal %w[ok ok ok], %w[processes.polling processes.user processes.access].map { |id| status_of(report, id) }, report
    assert_match(/jemalloc/, check_of(report, "processes.jemalloc")["message"])
    assert check_of(report, "guards.heap_dump")
  end

  def test_another_program_in_the_path
    FileUtils.mkdir_p("#{@root}/bin")
    File.write("#{@root}/bin/diagctl", "#!/bin/sh\n")
    File.chmod(0o755, "#{@root}/bin/diagctl")
    assert_warns("binary", %r{#{@root}/bin/diagctl}, env: env(DIAGCTL_BIN: "", PATH: "#{@root}/bin:/usr/bin:/bin"))
    assert_fails("binary", /not executable/, env: env(DIAGCTL_BIN: config_path))
  end

  private

  def check_of(report, id) = report.fetch("checks").find { |check| check["id"] == id }

  def status_of(report, id) = check_of(report, id)&.fetch("status")

  def assert_fails(id, message, *argv, env: self.env)
    argv = ["doctor"] if argv.empty?
    result = diagctl(*argv, "--json", env: env)
    assert_equal 1, result.status, result
    assert_check("fail", id, message, result)
    text = diagctl(*argv, env: env)
    assert_match(/^FAIL #{Regexp.escape(id)} /, text.out)
  end

  def assert_warns(id, message, *argv, env: self.env)
    assert_check("warn", id, message, diagctl("doctor", *argv, "--json", env: env))
  end

  def assert_check(status, id, message, result)
    check = check_of(result.json, id)
    assert_equal status, check&.fetch("status"), result
    assert_match message, check["message"]
    refute_nil check["hint"]
  end

  # Returns every path with all of its attributes.
  def tree
    Dir.glob("#{@root}/**/*", File::FNM_DOTMATCH).sort.to_h do |path|
      stat = File.lstat(path)
      [path, [stat.mode, stat.uid, stat.gid, stat.mtime.to_r, stat.file? ? Digest::SHA256.file(path).hexdigest : stat.ftype]]
    end.reject { |path, _| path.start_with?("#{config_path}") || path == "#{@root}/." }
  end

  def as_nobody(*argv)
    FileUtils.install(E2E::BIN, "#{@root}/diagctl", mode: 0o755)
    E2E::Command.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "#{@root}/diagctl", *argv, env: env(DIAGCTL_BIN: nil))
  end

  def mount(*argv) = assert(system("mount", *argv), argv.join(" "))

  # Mounts a small filesystem at the store's path.
  def within_mount(options)
    skip("only root can mount") unless Process.euid.zero?
    FileUtils.mkdir_p(@store)
    mount("-t", "tmpfs", "-o", "#{options},mode=0700", "diagctl-test", @store)
    yield
  ensure
    system("umount", @store) if File.stat(@store).dev != File.stat(@root).dev
  end

  def read_to_the_end(terminal)
    text = +""
    loop { text << terminal.readpartial(4096) }
  rescue Errno::EIO, EOFError
    text
  end
end
