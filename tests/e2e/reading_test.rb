# frozen_string_literal: true

require "zlib"
require_relative "support/e2e"

# Commands for people: list, show, fetch, and retention by hand.
class ReadingTest < E2E::Case
  # Members of the group may read but not change anything. Other users may not even read.
  def test_a_group_can_be_given_the_right_to_read
    skip("only root can take another user's place") unless Process.euid.zero?
    configure(head: 'group = "daemon"')
    store_capture("gc_stat" => '{"count":1}')
    store_capture("gc_stat" => '{"count":2}')
    as = ->(*groups, argv) { E2E::Command.run("setpriv", "--reuid=65534", "--regid=65534", *groups, E2E::BIN, *argv, env: env) }
    [%w[list], %w[show latest], %w[status]].each do |argv|
      result = as.("--groups=1", argv)
      assert result.ok?, result
    end
    assert_equal '{"count":2}', as.("--groups=1", %w[fetch latest:gc_stat -o -]).out
    [%w[gc], %w[rm latest], %w[pause]].each { |argv| refute as.("--groups=1", argv).ok?, argv.join(" ") }
    assert_equal 1, as.("--clear-groups", %w[list]).status
    assert_equal 2, captures.size
  end

  def test_the_group_can_read_from_the_first_command_on
    skip("only root can take another user's place") unless Process.euid.zero?
    configure(head: 'group = "daemon"')
    diagctl!("request", "gc_stat", "--reason", "x")
    result = E2E::Command.run("setpriv", "--reuid=65534", "--regid=65534", "--groups=1", E2E::BIN, "status", env: env)
    assert result.ok?, result
    holder.acquire # if the plugin comes first, it creates lease.lock itself
    FileUtils.rm_rf(@store)
    holder.acquire
    result = E2E::Command.run("setpriv", "--reuid=65534", "--regid=65534", "--groups=1", E2E::BIN, "status", env: env)
    assert result.ok?, result
  end

  def test_list_is_aligned_and_json_is_complete
    ids = [store_capture, store_capture("gc_stat" => "{}", "heap_dump" => E2E.dump("x" * 3000))]
    lines = diagctl!("list").out.lines
    assert_equal ids.reverse, lines.filter_map { |line| line[/\d{8}T\d{9}Z-\h+/] }, "the newest first"
    assert_match(/UTC|[+-]\d\d:?\d\d|local/, lines.join)
    listed = diagctl!("list", "--json").json.fetch("captures")
    assert_equal ids.reverse, listed.map { |capture| capture["id"] }
    assert_equal %w[gc_stat heap_dump heap_summary], listed.first.fetch("reports").map { |report| report["name"] }.sort
  end

  def test_show_by_prefix_and_latest
    store_capture
    id = store_capture
    assert_equal id, diagctl!("show", "latest", "--json").json.fetch("id")
    assert_equal id, diagctl!("show", id[0..-3], "--json").json.fetch("id")
    assert_includes diagctl!("show", "latest").out, "gc_stat"
    ambiguous = diagctl("show", id[0, 4])
    refute ambiguous.ok?
    assert_match(/ambiguous|more than one|matches/i, ambiguous.err)
  end

  def test_fetch_to_a_file_to_stdout_and_raw
    configure(**WITH_VALUES)
    data = "{\"type\":\"ROOT\"}\n" * 5000
    store_capture("heap_dump" => data)
    path = File.join(@root, "dump.json")
    diagctl!("fetch", "latest:heap_dump", "-o", path)
    assert_equal data, File.read(path)
    assert_equal data, diagctl!("fetch", "latest", "heap_dump", "-o", "-").out
    raw = diagctl!("fetch", "latest:heap_dump", "--raw", "-o", "-").out.b
    assert_equal data, Zlib::GzipReader.new(StringIO.new(raw)).read
  end

  def test_damage_is_detected_and_leaves_no_file
    id = store_capture("heap_dump" => E2E.dump(Random.bytes(50_000)))
    file = File.join(@store, "reports", id, meta(id).fetch("reports").first.fetch("file"))
    bytes = File.binread(file)
    bytes.setbyte(bytes.size / 2, bytes.getbyte(bytes.size / 2) ^ 1)
    File.binwrite(file, bytes)
    target = File.join(@root, "out")
    [[], ["--raw"]].each do |flags|
      result = diagctl("fetch", id, "heap_dump", "-o", target, *flags)
      assert_equal 1, result.status, result
      assert_match(/sha256|checksum|damaged|corrupt/i, result.err)
      refute_path_exists target
    end
    assert_empty Dir.glob("#{target}*")
  end

  def test_show_of_a_report_that_the_capture_does_not_have_matches_nothing
    id = store_capture("gc_stat" => "{}")
    assert_equal 0, diagctl("show", "#{id}:gc_stat").status
    result = diagctl("show", "#{id}:heap_dump")
    assert_equal [4, ""], [result.status, result.out], result
    assert_match(/has no report "heap_dump"/, result.err)
  end

  def test_closed_pipe_is_not_an_error
    configure(**WITH_VALUES)
    3.times { store_capture("heap_dump" => E2E.dump(Random.bytes(200_000))) }
    [%w[list --json], %w[list], %w[show latest], %w[status], %w[fetch latest:heap_dump -o -]].each do |argv|
      reader, writer = IO.pipe
      reader.close
      error = File.join(@root, "stderr")
      pid = Process.spawn(env, E2E::BIN, *argv, out: writer, err: error, unsetenv_others: true)
      writer.close
      _, status = Process.wait2(pid)
      assert_equal [0, ""], [status.exitstatus, File.read(error)], argv
    end
  end

  def test_rm_pin_unpin_and_gc
    first, second, third = Array.new(3) { store_capture }
    diagctl!("pin", first)
    diagctl!("rm", second)
    assert_equal [third, first], captures.map { |capture| capture["id"] }

    fourth = store_capture
    # Set only now, because the end of a capture applies retention too.
    configure(retention: "keep_free = \"1%\"\nmax_age = \"1s\"\nkeep_last = 1")
    diagctl!("unpin", third) # unpinning a capture that is not pinned is no error
    sleep 1.1
    before = Dir.children(File.join(@store, "reports")).sort
    plan = diagctl!("gc", "--dry-run")
    assert_equal before, Dir.children(File.join(@store, "reports")).sort, "a dry run deletes nothing"
    assert_match(/age/, plan.out)
    diagctl!("gc")
    assert_equal [fourth, first], captures.map { |capture| capture["id"] }, "the last of its kind and the pinned one stay"

    diagctl!("unpin", first)
    diagctl!("gc")
    assert_equal [fourth], captures.map { |capture| capture["id"] }
    assert_empty Dir.children(File.join(@store, "trash"))
  end

  def test_index_is_a_cache
    ids = Array.new(3) { store_capture }
    index = File.join(@store, "index.jsonl")
    [-> { File.unlink(index) }, -> { File.write(index, "{\"torn", mode: "a") }, -> { File.write(index, "garbage\n") }].each do |damage|
      damage.call
      assert_equal ids.reverse, captures.map { |capture| capture["id"] }
    end
  end

  # The newest are read from the catalog, all of them from the index: both say what is in the directory, whoever changed it.
  def test_the_newest_few_are_the_head_of_the_whole_list
    ids = Array.new(4) { store_capture }
    copied = ids.first.sub(/.{8}\z/, "00000000")
    changes = {
      "nothing" => -> {},
      "pinned" => -> { diagctl!("pin", ids.last) },
      "unpinned" => -> { diagctl!("unpin", ids.last) },
      "copied in" => -> { copy_capture(ids.first, copied, sequence: 1_000_000) },
      "one more after that" => -> { ids << store_capture },
      "deleted" => -> { diagctl!("rm", "latest") },
      "deleted by hand" => -> { FileUtils.rm_rf(File.join(@store, "reports", ids[1])) },
      "by retention" => -> { configure(retention: "keep_free = \"1%\"\nmax_captures = 2\nkeep_last = 0") && diagctl!("gc") }
    }
    changes.each do |what, change|
      change.call
      all = captures
      assert_equal Dir.children(File.join(@store, "reports")).sort, all.map { |capture| capture["id"] }.sort, what
      assert_equal all.first(2), diagctl!("list", "-n", "2", "--json").json.fetch("captures"), what
      assert_equal all.first["id"], diagctl!("show", "latest", "--json").json.fetch("id"), what
      assert_equal all.first["id"], diagctl!("show", "latest:gc_stat", "--json").json.fetch("id"), what
      assert_equal [all.size, all.first["id"]], diagctl!("status", "--json").json.fetch("store").values_at("captures", "latest"), what
    end
    assert_equal 2, captures.size
  end

  def test_run_stores_the_output_of_a_command
    result = diagctl!("run", "--report", "notes", "--", "sh", "-c", "echo from $DIAGCTL_CAPTURE; test -d \"$DIAGCTL_CAPTURE_DIR\"")
    id = captures.first.fetch("id")
    assert_equal "from #{id}\n", diagctl!("fetch", "latest:notes", "-o", "-").out, result
  end

  def test_run_stores_files_from_the_capture_directory
    diagctl!("run", "--", "sh", "-c", "echo hello > \"$DIAGCTL_CAPTURE_DIR/notes.txt\"")
    report = meta(captures.first.fetch("id")).fetch("reports").first
    assert_equal "hello\n", diagctl!("fetch", "latest", report.fetch("name"), "-o", "-").out
  end

  # Names and arguments that are not valid UTF-8 are accepted like any others.
  def test_run_takes_files_and_arguments_of_any_name
    script = 'for name in "$@"; do printf %s "$name" > "$DIAGCTL_CAPTURE_DIR/$name"; done'
    names = ["\xff\xfe", "a b", "a_b", "7", "meta.json", "x" * 200]
    diagctl!("run", "--", "sh", "-c", script, "sh", *names)
    id = captures.first.fetch("id")
    reports = meta(id).fetch("reports")
    assert_equal names.size, reports.size
    kept = reports.map { |report| diagctl!("fetch", id, report.fetch("name"), "-o", "-").out.b }
    assert_equal names.map(&:b).sort, kept.sort
    assert_equal reports.map { |report| report.fetch("file") }.push("meta.json").sort, Dir.children(File.join(@store, "reports", id)).sort
  end

  def test_help_that_cannot_be_printed_is_a_failure
    [%w[--help], %w[--version], %w[list --help]].each do |argv|
      result = E2E::Command.run("sh", "-c", "exec \"$0\" \"$@\" >/dev/full", E2E::BIN, *argv, env: env)
      assert_equal 1, result.status, result
      assert_match(/cannot write to stdout/, result.err)
    end
  end

  def test_terminated_run_ends_its_command_first_and_leaves_nothing
    %w[TERM INT HUP].each do |signal|
      told = File.join(@root, "told-#{signal}")
      script = "trap 'echo told > #{told}; exit 0' #{signal}; echo data; echo ready > #{told}; while :; do sleep 0.05; done"
      pid = Process.spawn(env, E2E::BIN, "run", "--report", "notes", "--", "sh", "-c", script, unsetenv_others: true, err: "#{@root}/err")
      wait_until("the command runs") { File.exist?(told) && File.read(told) == "ready\n" }
      Process.kill(signal, pid)
      _, status = Process.wait2(pid)
      assert_equal Signal.list[signal], status.termsig, File.read("#{@root}/err")
      assert_equal "told\n", File.read(told)
      assert_match(/ended by signal #{Signal.list[signal]}; nothing was stored/, File.read("#{@root}/err"))
      assert_nothing_staged
      assert_empty captures
      assert_match(/^lease +free/, diagctl!("status").out)
    end
    assert_match(/aborted/, diagctl!("status", "--explain").out)
  end

  def test_run_under_nohup_continues
    script = "echo ready > #{@root}/ready; while ! test -e #{@root}/go; do sleep 0.05; done; echo data"
    pid = Process.spawn(env, "sh", "-c", "trap '' HUP; exec \"$0\" \"$@\"", E2E::BIN, "run", "--report", "notes", "--", "sh", "-c", script, unsetenv_others: true, out: File::NULL)
    wait_until("the command runs") { File.exist?("#{@root}/ready") }
    Process.kill(:HUP, pid)
    File.write("#{@root}/go", "")
    assert_equal 0, Process.wait2(pid).last.exitstatus
    assert_equal "data\n", diagctl!("fetch", "latest:notes", "-o", "-").out
  end

  def test_run_of_a_failed_command_does_not_report_success
    result = diagctl("run", "--report", "notes", "--", "sh", "-c", "echo half; exit 3")
    refute_equal 0, result.status, result
    assert_nothing_staged
    store_capture
  end

  private

  def copy_capture(id, copy, **changed)
    dir = File.join(@store, "reports", copy)
    FileUtils.cp_r(File.join(@store, "reports", id), dir, preserve: true)
    meta = JSON.parse(File.read(File.join(dir, "meta.json"))).except("check")
    File.write(File.join(dir, "meta.json"), JSON.generate(meta.merge("id" => copy, **changed.transform_keys(&:to_s))))
  end
end
