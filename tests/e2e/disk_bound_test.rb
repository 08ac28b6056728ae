# frozen_string_literal: true

require_relative "support/e2e"

# A raw heap dump never reaches a disk, and the worker itself writes none of it.
class DiskBoundTest < E2E::Case
  MEBIBYTE = 1024 * 1024
  MEMORY = 40 * MEBIBYTE

  def test_large_dump_uses_no_more_disk_than_its_compressed_size
    configure(**WITH_VALUES)
    server = puma
    server.get("/grow?mb=320")
    written_before = E2E::Processes.written(server.pid)
    peak = peak_use_during { diagctl!("request", "heap_dump", "--reason", "big", "--wait", deadline: 120) }
    written = E2E::Processes.written(server.pid) - written_before

    report = meta(captures.first.fetch("id")).fetch("reports").first
    assert_operator report.fetch("raw_bytes"), :>, 300 * MEBIBYTE
    assert_operator peak, :<, report.fetch("stored_bytes") + (4 * MEBIBYTE), "disk in use while the dump ran"
    assert_operator written, :<, MEBIBYTE, "bytes that the worker wrote anywhere"
  end

  def test_capture_that_does_not_fit_under_max_use_is_refused_and_leaves_nothing
    configure(**WITH_VALUES, retention: "keep_free = \"1%\"\nmax_use = \"1MiB\"")
    kept = store_capture("gc_stat" => "{}")
    dumper = granted("heap_dump")
    statuses = nil
    peak = peak_use_during { statuses = [dumper.put("heap_dump", E2E.dump(Random.bytes(6 * MEBIBYTE))), dumper.finalize] }
    refute statuses.all?(&:ok?), statuses
    assert_match(/max_use|space/, statuses.map(&:err).join, statuses)
    assert_operator peak, :<, 1.5 * MEBIBYTE
    assert_nothing_staged
    assert_includes captures.map { |capture| capture["id"] }, kept
  end

  def test_a_store_full_of_pinned_captures_refuses_a_run_before_its_command
    configure(**WITH_VALUES)
    diagctl!("pin", store_capture("heap_dump" => E2E.dump(Random.bytes(MEBIBYTE))))
    configure(retention: "keep_free = \"1%\"\nmax_use = \"1MiB\"")
    ran = File.join(@root, "ran")
    result = diagctl("run", "--", "touch", ran)
    assert_equal 10, result.status, result
    assert_match(/not granted: store: the store holds .* of retention\.max_use 1\.00 MiB/, result.err)
    refute_path_exists ran
    assert_nothing_staged
  end

  # Reports that fit are published. A report that does not fit costs no protected capture its place. (An unprotected one may go
  # before it is known that the report does not fit.)
  def test_a_report_of_run_that_does_not_fit_leaves_the_rest
    configure(retention: "keep_free = \"1%\"\nmax_use = \"1MiB\"\nkeep_last = 1")
    first = diagctl!("run", "--json", "--report", "notes", "--", "echo", "first").json.fetch("id")
    fill = "echo important > \"$DIAGCTL_CAPTURE_DIR/small.txt\"; head -c 3000000 /dev/urandom"
    result = diagctl("run", "--json", "--report", "big", "--", "sh", "-c", fill)
    assert_equal 5, result.status, result
    assert_match(/report big failed: .*retention\.max_use is 1\.00 MiB/, result.err)
    assert_equal "important\n", diagctl!("fetch", "#{result.json.fetch('id')}:small", "-o", "-").out
    diagctl("run", "--", "sh", "-c", "#{fill} > \"$DIAGCTL_CAPTURE_DIR/core\"")
    assert_equal 0, diagctl("gc").status
    assert_equal 0, diagctl("show", first).status, "the first capture had to go"
  end

  def test_full_disk_names_the_report
    skip("only root can mount") unless Process.euid.zero?
    FileUtils.mkdir_p(@store)
    assert system("mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "diagctl-test", @store)
    result = diagctl("run", "--report", "notes", "--", "head", "-c", "5000000", "/dev/urandom")
    assert_equal 1, result.status, result
    assert_match(/cannot write report notes: No space left on device/, result.err)
    assert_match(/hint: make room/, result.err)
    refute_includes result.err, "staging"
    assert_nothing_staged
  ensure
    system("umount", @store) if File.stat(@store).dev != File.stat(@root).dev
  end

  def test_the_cap_holds_over_many_captures
    configure(**WITH_VALUES, retention: "keep_free = \"1%\"\nmax_use = \"1MiB\"")
    ids = []
    peak = peak_use_during { 6.times { ids << store_capture("heap_dump" => E2E.dump(Random.bytes(300_000))) } }
    assert_operator peak, :<, 1.5 * MEBIBYTE
    listed = captures.map { |capture| capture["id"] }
    assert_equal ids.last, listed.first, "the newest stays"
    assert_equal ids.last(listed.size).reverse, listed, "the oldest went first"
    assert_operator listed.size, :<, 5
  end

  # The limit is on address space, of which the program alone takes up to 20 MiB.
  def test_making_room_in_a_store_of_many_captures_takes_little_memory
    kept = store_capture("heap_dump" => E2E.dump("the only one that is good"))
    many_captures(20_000)
    used = diagctl!("status", "--json").json.dig("store", "used_bytes")
    configure(**WITH_VALUES, retention: "keep_free = \"1%\"\nmax_use = \"#{(used / 1024) + 16_000}KiB\"")
    before = Dir.children(reports).sort
    dumper = granted("heap_dump")
    [["put", "heap_dump", E2E.dump(Random.bytes(12 * MEBIBYTE))], ["finalize"]].each do |command, report, data|
      result = limited(dumper, command, *report, stdin: data.to_s)
      assert result.ok?, result
    end
    gone = before - Dir.children(reports)
    assert_operator gone.size, :>, 100
    assert_equal (before - [kept]).first(gone.size), gone, "the oldest went, but not the last of its kind"
  end

  private

  def reports = File.join(@store, "reports")

  # Creates captures of one kind that consist only of their records.
  def many_captures(count)
    now = (Time.now.to_f * 1000).to_i
    index = Array.new(count) do |i|
      id = format("20260101T%09dZ-%08x", i, i)
      dir = File.join(reports, id)
      common = { id: id, sequence: i + 10, created: "2026-01-01T00:00:00.000Z", store_ms: now, host: "here", pid: 1, role: "puma", rule: "routine" }
      made = %w[gc_stat smaps threads].map { |name| { name: name, stored_bytes: 1000, raw_bytes: 9000 } }
      Dir.mkdir(dir, 0o700)
      File.write(File.join(dir, "meta.json"), JSON.generate(schema: 1, **common, reports: made), perm: 0o600)
      JSON.generate(**common, reason: "due every 2h, the last one was 2h ago", reports: made, disk_bytes: 8192)
    end
    File.write(File.join(@store, "index.jsonl"), index.map { |line| "#{line}\n" }.join, mode: "a")
  end

  def limited(dumper, command, *rest, **options)
    lease = dumper.lease.fileno
    argv = [E2E::BIN, command, dumper.capture, *rest, "--lease-fd", lease]
    E2E::Command.run("prlimit", "--as=#{MEMORY}", "--", *argv, env: env, **options, lease => lease)
  end

  def peak_use_during
    peak = 0
    running = true
    sampler = Thread.new do
      while running
        peak = [peak, disk_use].max
        sleep 0.02
      end
    end
    yield
    peak
  ensure
    running = false
    sampler.join
  end

  # Returns the size of everything in the test directory (the store, TMPDIR, HOME, the working directory), and of unlinked files
  # that are still open.
  def disk_use
    files = Dir.glob("#{@root}/**/*", File::FNM_DOTMATCH).to_h { |path| [path, path] }
    E2E::Processes.descendants.each do |process|
      Dir.glob("/proc/#{process.pid}/fd/*").each do |fd|
        target = File.readlink(fd)
        files[target] = fd if target.start_with?("/") && target.end_with?(" (deleted)") && !target.start_with?("/memfd:")
      rescue SystemCallError
        next
      end
    end
    files.each_value.sum { |path| blocks(path) * 512 }
  end

  def blocks(path)
    stat = path.start_with?("/proc/") ? File.stat(path) : File.lstat(path)
    stat.file? ? stat.blocks : 0
  rescue SystemCallError
    0
  end
end
