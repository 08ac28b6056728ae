# frozen_string_literal: true

require_relative "support/e2e"

# Nothing that a command of `diagctl run` leaves in the capture's directory stops this capture or the next. Tested as an
# ordinary user, because root can read and delete everything.
class LeftByCommandsTest < E2E::Case
  NOBODY = 65_534

  def setup
    super
    return unless Process.euid.zero?

    FileUtils.install(E2E::BIN, "#{@root}/diagctl", mode: 0o755)
    FileUtils.chown(NOBODY, NOBODY, @root)
  end

  def test_unreadable_entries_are_named_and_the_rest_is_stored
    {
      "a read-only directory" => "mkdir d; touch d/f; chmod 500 d",
      "a file that its owner may not read" => "touch d.txt; chmod 000 d.txt",
      "a name as long as a name can be" => "mkdir d$(printf a%.0s $(seq 254))"
    }.each do |what, left|
      result = leaving("#{left}; echo x > whole.txt")
      assert_equal 5, result.status, "#{what}: #{result}"
      reports = result.json.fetch("reports").to_h { |report| [report["name"], report["error"]] }
      assert_nil reports.delete("whole"), "#{what}: #{result}"
      assert_match(/in quarantine/, reports.values.fetch(0), what)
      assert_next_is_stored(what)
    end
  end

  def test_a_file_name_that_is_not_utf8_becomes_a_report
    result = leaving("echo x > $(printf '\\377.txt')")
    assert_equal 0, result.status, result
    assert_equal [2], result.json.fetch("reports").map { |report| report["raw_bytes"] }
  end

  # The compressed form of `a.txt` would be `a.txt.gz`.
  def test_a_file_and_its_own_compressed_form_are_both_stored
    result = leaving("echo one > a.txt; echo two > a.txt.gz")
    assert_equal 0, result.status, result
    assert_equal %w[one two], contents(result)
  end

  def test_a_file_named_like_the_stored_stdout_is_stored_beside_it
    result = as_nobody("run", "--json", "--report", "a", "--", "sh", "-c", "cd \"$DIAGCTL_CAPTURE_DIR\"; echo two > a.txt.gz; echo one")
    assert_equal 0, result.status, result
    assert_equal %w[one two], contents(result)
  end

  def test_files_of_a_failed_command_are_stored_whatever_their_names
    result = as_nobody("run", "--json", "--report", "a", "--", "sh", "-c", "echo half > \"$DIAGCTL_CAPTURE_DIR/a.csv\"; exit 3")
    assert_equal 5, result.status, result
    assert_includes contents(result), "half"
  end

  # A capture has at least one report. A report that was asked for may be empty.
  def test_a_command_that_leaves_nothing_makes_no_capture
    result = as_nobody("run", "--", "true")
    assert_equal 1, result.status, result
    assert_match(/produced nothing.*--report NAME/m, result.err)
    assert_empty captures
    assert_equal 0, as_nobody("run", "--json", "--report", "slow_queries", "--", "true").status
  end

  # A killed dumper leaves everything to the next lease holder.
  def test_leftovers_that_cannot_be_deleted_stop_no_capture
    {
      "read-only directories" => "mkdir -p d/e; touch d/e/f; chmod 000 d/e; chmod 500 d",
      "a staging directory without rights" => "touch f; chmod 000 .",
      "more levels than there are descriptors" => "for i in $(seq 200); do mkdir d; cd -P d; done"
    }.each do |what, left|
      assert_equal(-9, leaving("#{left}; kill -KILL $PPID").status, what)
      assert_next_is_stored(what)
    end
    assert_equal 1, Dir.children("#{@store}/trash").size, "only the deep one cannot be deleted"
  end

  # It forks twice, in a session of its own, and drops its environment.
  def test_a_command_of_a_report_that_daemonizes_itself_ends_with_the_poll
    pid = File.join(@root, "pid")
    script = "setsid env -i /bin/sh -c 'echo $$ > #{pid}; exec sleep 1000' >/dev/null 2>&1 & until [ -s #{pid} ]; do sleep 0.01; done; echo it"
    configure(head: "", "reports.look" => "command = [\"/bin/sh\", \"-c\", #{script.dump}]")
    dumper = granted("look")
    daemon = File.read(pid).to_i
    refute E2E::Processes.alive?(daemon), "the daemon outlived acquire"
    assert dumper.finalize.ok?
  end

  def test_run_has_a_deadline_and_publishes_what_the_command_produced
    configure(guards: "min_free_disk = \"1%\"\nmemory_headroom = 0.1\ndeadline = \"1s\"")
    result = as_nobody("run", "--json", "--report", "log", "--", "sh", "-c", "echo half; setsid sleep 1000 & sleep 1000")
    assert_equal 5, result.status, result
    assert_match(/not done within guards\.deadline/, result.err)
    fetched = diagctl("fetch", "#{result.json.fetch("id")}:log", "-o", "-")
    assert_equal ["half\n", 5], [fetched.out, fetched.status]
    assert_equal ["the command was cut off (killed: it was not done within guards.deadline)"], errors(result)
    assert_empty E2E::Processes.descendants.select { |process| process.argv.include?("sleep") }
    assert_next_is_stored("a command that hung")
  end

  # Half a dump has nothing by which one could tell: `heap` has to know that it is not whole.
  def test_the_output_of_a_command_that_was_killed_is_not_whole
    dump = "for i in 1 2 3; do echo '{\"type\":\"ROOT\", \"root\":\"vm\"}'; done; kill -9 $$"
    result = as_nobody("run", "--json", "--report", "heap_dump", "--", "sh", "-c", dump)
    assert_equal 5, result.status, result
    assert_equal ["the command was cut off (signal: 9 (SIGKILL))"], errors(result)
    top = diagctl("heap", "top", result.json.fetch("id"), "--json")
    assert_equal [5, false], [top.status, top.json.fetch("complete")]
    assert_equal [nil], errors(as_nobody("run", "--json", "--report", "log", "--", "sh", "-c", "echo whole; exit 3"))
  end

  private

  def errors(result) = result.json.fetch("reports").map { |report| report["error"] }

  def leaving(script) = as_nobody("run", "--json", "--", "sh", "-c", "cd \"$DIAGCTL_CAPTURE_DIR\"; #{script}")

  def contents(result)
    id, reports = result.json.values_at("id", "reports")
    reports.map { |report| report(id, report.fetch("name")).chomp }.sort
  end

  def assert_next_is_stored(what)
    result = as_nobody("run", "--json", "--report", "notes", "--", "echo", "x")
    assert_equal 0, result.status, "after #{what}: #{result}"
  end

  def as_nobody(*argv)
    command = ["prlimit", "--nofile=128", E2E::BIN, *argv]
    if Process.euid.zero?
      command = ["setpriv", "--reuid=#{NOBODY}", "--regid=#{NOBODY}", "--clear-groups", "prlimit", "--nofile=128", "#{@root}/diagctl", *argv]
    end
    E2E::Command.run(*command, env: env(DIAGCTL_BIN: nil))
  end
end
