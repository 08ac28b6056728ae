# frozen_string_literal: true

require_relative "support/e2e"

# The protocol of docs/protocol.md with the real binary, without Puma.
class ProtocolTest < E2E::Case
  def test_acquire_put_finalize
    dumper = granted("heap_dump", "gc_stat", "smaps")
    answer = dumper.answer
    assert_equal [1, "on_demand", "fork"], answer.values_at("schema", "rule", "snapshot")
    assert_equal %w[gc_stat heap_dump], answer.fetch("reports").map { |report| report["name"] }, "cheapest first, native ones taken"
    assert_equal %w[inline snapshot], answer.fetch("reports").map { |report| report["producer"] }
    assert_operator answer.fetch("deadline"), :>, 0
    assert_equal 0o700, File.stat(dumper.staging).mode & 0o777

    assert dumper.put("gc_stat", '{"count":1}').ok?
    assert dumper.put("heap_dump", "{\"type\":\"ROOT\"}\n" * 1000).ok?
    result = dumper.finalize("--set", "cost.pause_ms=12.5", "--set", "versions.ruby=3.1.2", "--set", "team=web")
    assert result.ok?, result
    assert_equal dumper.capture, result.json.fetch("id")

    meta = meta(dumper.capture)
    assert_in_delta 12.5, meta.dig("cost", "pause_ms")
    assert_equal "3.1.2", meta.dig("versions", "ruby")
    assert_includes meta.to_json, '"team":"web"'
    assert_equal %w[gc_stat heap_dump heap_summary smaps], meta.fetch("reports").map { |report| report["name"] }.sort
    assert_equal [Process.pid, "puma"], meta.values_at("pid", "role")
    assert_equal '{"count":1}', diagctl!("fetch", "latest:gc_stat", "-o", "-").out
    assert_nothing_staged
  end

  # Otherwise the staged file would be opened as descriptor 1 or 2, and output would be written into the report.
  def test_closed_standard_descriptors_are_not_given_to_files
    dumper = granted("heap_dump")
    reader, writer = IO.pipe
    argv = [E2E::BIN, "--dir", @store, "put", dumper.capture, "heap_dump", "--lease-fd", "9"]
    pid = Process.spawn(env, *argv, in: reader, out: :close, err: :close, 9 => dumper.lease, unsetenv_others: true)
    reader.close
    wait_until("put writes") { !Dir.glob(".heap_dump.*", base: dumper.staging).empty? }
    assert_equal [File::NULL] * 2, [1, 2].map { |number| File.readlink("/proc/#{pid}/fd/#{number}") }
    writer.write("{}")
    writer.close
    assert_predicate Process.wait2(pid).last, :success?
  end

  # A producer that fails at once would otherwise leave an empty report that looks like a real one.
  def test_empty_report_is_recorded_as_an_error
    dumper = granted("heap_dump", "gc_stat")
    assert dumper.put("gc_stat", "{}").ok?
    result = dumper.put("heap_dump", "")
    assert_equal 1, result.status, result
    assert_match(/report heap_dump is empty: its producer wrote nothing/, result.err)
    result = dumper.finalize
    assert_equal 5, result.status, result
    assert_equal [nil, "report heap_dump is empty: its producer wrote nothing"], result.json.fetch("reports").map { |report| report["error"] }
    assert_equal %w[gc_stat.json.gz meta.json], Dir.children("#{@store}/reports/#{dumper.capture}").sort
  end

  # Ruby 3.4 loses bytes when a signal interrupts a write.
  def test_damaged_heap_dump_is_stored_and_reported_as_damaged
    configure(**WITH_VALUES)
    line = %({"address":"0x7fc4927c4120", "type":"STRING", "bytesize":2, "value":"ab", "memsize":40}\n)
    data = "#{line * 3}#{line[0, 60]}#{line * 5}"
    dumper = granted("gc_stat", "heap_dump")
    assert dumper.put("gc_stat", "{}").ok?
    assert dumper.put("heap_dump", data).ok?
    result = dumper.finalize
    assert_equal 5, result.status, result
    report = result.json.fetch("reports").find { |found| found["name"] == "heap_dump" }
    assert_equal "heap_dump.ndjson.gz", report["file"]
    where = "line 4 (byte #{3 * line.bytesize}) of the heap dump is damaged"
    assert_includes report["error"], where
    dumper.close

    assert_includes diagctl!("list").out, "heap_dump!"
    shown = diagctl!("show", "latest").out
    assert_includes shown, where
    assert_match(/^heap_dump .*json, with values/, shown)
    assert diagctl!("verify", "latest").ok?
    result = diagctl("fetch", "latest:heap_dump", "-o", "-")
    assert_equal [5, data], [result.status, result.out]
    assert_includes result.err, where
    result = diagctl("fetch", "latest", "-o", File.join(@root, "all"), "--json")
    assert_equal 5, result.status, result
    written = result.json.fetch("written").to_h { |file| file.values_at("report", "damaged") }
    assert_equal [nil, report["error"]], written.values_at("gc_stat", "heap_dump")
    assert_equal data, File.read(File.join(@root, "all", "heap_dump.ndjson"))
  end

  def test_damaged_lines_are_missing_in_the_graph_and_counted
    line = %({"address":"0x7fc4927c4120", "type":"STRING", "bytesize":2, "value":"ab", "memsize":40}\n)
    odd = %({"address":"0x7fc4927c4148", "type":"OBJECT", "file":"/srv/a "quoted" name.rb", "line":3, "generation":1, "memsize":40}\n)
    dumper = granted("heap_dump")
    assert dumper.put("heap_dump", "#{line * 3}#{odd}#{line[0, 60]}#{line * 5}").ok?
    result = dumper.finalize
    assert_equal 5, result.status, result
    report = result.json.fetch("reports").first
    assert_equal ["heap_dump.graph.zst", "dump_all", 1, 1], report.values_at("file", "producer", "lost", "repaired")
    assert_match(/\Aline 5 \(byte \d+\) of the heap dump is damaged/, report["error"])
    assert diagctl!("verify", "latest").ok?
    result = diagctl("fetch", "latest:heap_dump", "--as", "json", "-o", "-")
    assert_equal [5, 8], [result.status, result.out.lines.size], result
    assert_equal ['/srv/a "quoted" name.rb'], result.out.lines.filter_map { |text| JSON.parse(text)["file"] }
    assert_includes result.err, "line 5"
  end

  # `finalize` compresses reports that were staged uncompressed.
  def test_granted_report_staged_as_a_file_becomes_that_report
    dumper = granted("threads", "gc_stat", "heap_dump")
    File.write(File.join(dumper.staging, "threads.txt"), "main thread\n")
    File.write(File.join(dumper.staging, "heap_dump.json"), E2E.dump("whole"))
    File.write(File.join(dumper.staging, "gc_stat.json"), "beside what was put")
    assert dumper.put("gc_stat", "{}").ok?
    result = dumper.finalize
    assert_equal 0, result.status, result
    assert_equal %w[gc_stat threads heap_dump gc_stat_json], result.json.fetch("reports").map { |report| report["name"] }
    assert_equal "main thread\n", report("latest", "threads")
    assert_equal "application/vnd.diagctl.heap-graph", result.json.fetch("reports")[2].fetch("content_type")
    assert_equal "{}", report("latest", "gc_stat")
  end

  def test_second_put_of_a_report_is_refused_and_changes_nothing
    configure(**WITH_VALUES)
    dumper = granted("heap_dump")
    pipe, put = dumper.start_put("heap_dump")
    pipe.write(E2E.dump("the first"))
    wait_until("put writes") { !Dir.glob(".heap_dump.partial", base: dumper.staging).empty? }
    refused = dumper.put("heap_dump", "the second")
    assert_equal 1, refused.status, refused
    assert_match(/another put of it is under way/, refused.err)
    pipe.close
    assert_predicate Process.wait2(put).last, :success?
    assert_equal 1, dumper.put("heap_dump", "the third").status
    assert_equal 0, dumper.finalize.status
    assert_equal E2E.dump("the first"), report("latest", "heap_dump").b
  end

  def test_put_of_a_native_report_does_not_replace_it
    dumper = granted("smaps_rollup", "gc_stat")
    refused = dumper.put("smaps_rollup", "made up")
    assert_equal 1, refused.status, refused
    dumper.put("gc_stat", "{}")
    assert_equal 0, dumper.finalize.status
    assert_match(/^Rss:/, report("latest", "smaps_rollup"))
  end

  # The environment describes the process to the command, whose output becomes the report while it runs.
  def test_operator_command_makes_a_report
    script = "echo $DIAGCTL_PID $DIAGCTL_ROLE $DIAGCTL_WORKER $DIAGCTL_CAPTURE; ls -l /proc/self/fd"
    dumper, meta = reported_by(script, more: 'content_type = "text/csv"')
    told, *descriptors = report(meta.fetch("id"), "tables").lines
    assert_equal [Process.pid.to_s, "puma", "w", dumper.capture], told.split
    assert_empty descriptors.grep(/lease/), "the command has the lease"
    assert_equal ["tables.csv.gz", "text/csv", nil], meta.dig("reports", 0).values_at("file", "content_type", "error")
    assert_operator meta.dig("reports", 0, "took_ms"), :>, 0
  end

  def test_failed_command_is_recorded_with_its_stderr_and_leaves_nothing_running
    { "echo half; echo no such table >&2; exit 3" => /sh ended with exit status: 3: no such table/,
      "sleep 600 & echo $! > #{@root}/left; sleep 600" => /sh was killed after its time-out of 300ms/,
      "exit 0" => /sh printed nothing/ }.each do |script, error|
      _, meta = reported_by(script, more: 'timeout = "300ms"')
      tables = meta.fetch("reports").first
      assert_equal ["tables", nil], tables.values_at("name", "file")
      assert_match error, tables.fetch("error")
    end
    refute E2E::Processes.alive?(File.read(File.join(@root, "left")).to_i)
  end

  # `run --report` makes the report itself, even if another producer exists for that name.
  def test_run_makes_the_report_that_it_names_itself
    configure("[reports.tables]\ncommand = [\"false\"]")
    %w[tables smaps].each do |name|
      id = diagctl!("run", "--json", "--report", name, "--", "echo", "mine").json.fetch("id")
      assert_equal [name], meta(id).fetch("reports").map { |report| report["name"] }
      assert_equal "mine\n", report(id, name)
    end
  end

  # Makes a capture with a command's report. Returns the lease holder and the capture's record.
  def reported_by(script, more:)
    configure("[reports.tables]\ncommand = [\"sh\", \"-c\", #{script.inspect}]\n#{more}")
    diagctl!("request", "tables", "--reason", "a test")
    dumper = holder
    result = dumper.acquire("--name", "w")
    assert dumper.granted?, result
    assert_empty dumper.answer.fetch("reports"), "nothing is left for the plugin"
    finalized = dumper.finalize
    dumper.close
    [dumper, finalized.json]
  end

  def test_only_the_owner_can_read
    store_capture
    Dir.glob("#{@store}/**/*", File::FNM_DOTMATCH).each do |path|
      stat = File.lstat(path)
      assert_equal stat.directory? ? 0o700 : 0o600, stat.mode & 0o777, path
    end
  end

  def test_failed_report_is_recorded_with_its_error
    dumper = granted("gc_stat", "jemalloc_stats", "heap_dump")
    assert dumper.put("gc_stat", "{}").ok?
    assert dumper.put("heap_dump", "half of it").ok?
    result = dumper.finalize("--failed", "jemalloc_stats=no jemalloc here", "--failed", "heap_dump=broke off")
    assert_equal 5, result.status, result
    errors = meta(dumper.capture).fetch("reports").to_h { |report| [report["name"], report["error"]] }
    assert_equal({ "gc_stat" => nil, "jemalloc_stats" => "no jemalloc here", "heap_dump" => "broke off" }, errors)
    refute_includes Dir.children(File.join(@store, "reports", dumper.capture)).join(" "), "heap_dump"
  end

  # The steps after publication are done as far as possible: a request that was served is not served again.
  def test_unwritable_index_does_not_prevent_the_other_steps
    dumper = granted("gc_stat")
    refute_empty Dir.children("#{@store}/requests")
    FileUtils.rm_f("#{@store}/index.jsonl")
    Dir.mkdir("#{@store}/index.jsonl")
    dumper.put("gc_stat", "{}")
    assert_equal 0, dumper.finalize.status
    assert_empty Dir.children("#{@store}/requests")
    assert_equal [dumper.capture], captures.map { |capture| capture.fetch("id") }
    told = diagctl!("status", "--explain", "--json").json.fetch("events").map { |event| event.values_at("event", "reason").join(" ") }
    assert_match(/^failed after publishing: .*cannot open .*index\.jsonl/, told.join("\n"))
    # The same happens on a full disk, where `rm` is needed to free space.
    assert_equal 0, diagctl("rm", "latest").status
    assert_empty captures
  end

  def test_granted_report_neither_put_nor_failed_is_an_error
    dumper = granted("gc_stat", "threads")
    dumper.put("gc_stat", "{}")
    assert_equal 5, dumper.finalize.status
    missing = meta(dumper.capture).fetch("reports").find { |report| report["name"] == "threads" }
    refute_nil missing["error"]
  end
end
