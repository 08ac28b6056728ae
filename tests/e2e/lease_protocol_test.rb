# frozen_string_literal: true

require_relative "support/e2e"

# The lease as plugins see it: busy, stale, lost and given back. See docs/protocol.md.
class LeaseProtocolTest < E2E::Case
  def test_abort_returns_the_grant
    dumper = granted("gc_stat")
    dumper.put("gc_stat", "{}")
    assert dumper.abort("the worker changed its mind").ok?
    assert_nothing_staged
    assert_empty captures
    assert_match(/changed its mind/, diagctl!("status", "--explain").out)
    store_capture
  end

  def test_worker_aborts_a_dead_dumpers_grant_on_another_description
    dumper = granted("gc_stat")
    heir = holder
    refused = heir.abort("it lives", id: dumper.capture)
    assert_equal 1, refused.status
    assert_match(/its dumper still holds the lease/, refused.err)
    dumper.close
    assert heir.abort("the dumper was killed", id: dumper.capture).ok?
    assert_nothing_staged
    assert_match(/aborted .*#{dumper.capture}.*the dumper was killed/, diagctl!("status", "--explain").out)
    assert_match(/^lease +free$/, diagctl!("status").out)

    # A second attempt is refused, and the lease of another grant is not touched.
    assert_equal 1, heir.abort("again", id: dumper.capture).status
    other = granted("gc_stat")
    assert_match(/the lease has passed on to capture #{other.capture}/, heir.abort("late", id: dumper.capture).err)
    assert other.put("gc_stat", "{}").ok?
    assert other.finalize.ok?
  end

  def test_second_description_is_told_busy
    first = granted("gc_stat")
    diagctl!("request", "gc_stat", "--reason", "one more")
    second = holder
    assert_equal 10, second.acquire.status
    assert_equal "busy", second.answer.fetch("verdict")
    assert_equal "process #{Process.pid} (puma) holds the lease for capture #{first.capture}", second.answer.fetch("reason")
    assert_operator second.answer.fetch("retry_after"), :>, 0
  end

  def test_same_description_is_refused_while_it_holds_the_lease
    dumper = granted("gc_stat")
    capture = dumper.capture
    diagctl!("request", "gc_stat", "--reason", "one more")
    result = dumper.acquire
    refute_equal 0, result.status, result
    refute dumper.granted?
    dumper.put("gc_stat", "{}", id: capture)
    assert dumper.finalize(id: capture).ok?
  end

  def test_what_a_dead_dumper_finished_is_published_by_the_next_grant_and_the_rest_has_its_error
    first = granted("gc_stat", "heap_dump")
    first.put("gc_stat", "{}")
    pipe, put = first.start_put("heap_dump")
    pipe.write(E2E.dump(Random.bytes(100_000)))
    E2E::Processes.signal(:KILL, put)
    Process.wait(put)
    first.close
    second = granted("gc_stat")
    assert_equal [second.capture], Dir.children(File.join(@store, "staging"))
    entries = meta(first.capture).fetch("reports").to_h { |report| [report["name"], report["error"]] }
    assert_equal({ "gc_stat" => nil, "heap_dump" => "its dumper ended without publishing it" }, entries)
    assert_equal "{}", report(first.capture, "gc_stat")
  end

  def test_leftovers_of_which_nothing_is_whole_are_cleaned_and_the_request_is_tried_again
    first = granted("gc_stat")
    first.close
    second = holder
    assert_equal 0, second.acquire.status
    assert_equal [second.capture], Dir.children(File.join(@store, "staging"))
    assert_empty captures
  end

  # The worker of a dead dumper tells how it ended, on a description that does not hold the lease.
  def test_what_is_whole_of_a_dump_that_broke_off_is_published_at_once
    dumper = granted("gc_stat", "heap_dump")
    dumper.put("gc_stat", "{}")
    id = dumper.capture
    worker = holder
    records = "broken_off - 27\nkilled by SIGKILL after 3 send - 0\n"
    refused = worker.send(:call, "finalize", id, "--records", "--broken-off", stdin: records)
    assert_match(/its dumper still holds the lease/, refused.err)
    dumper.close
    result = worker.send(:call, "finalize", id, "--records", "--broken-off", stdin: records)
    assert_equal 5, result.status, result
    assert_equal "killed by SIGKILL after 3 s", meta(id).fetch("reports").last.fetch("error")
    assert_nothing_staged
    assert_match(/^lease +free$/, diagctl!("status").out)
    assert_equal 1, worker.send(:call, "finalize", id, "--records", "--broken-off", stdin: records).status
  end

  def test_a_whole_capture_takes_one_program_that_reads_records
    dumper = granted("gc_stat", "threads", "heap_dump")
    records = "report gc_stat 2\n{}report threads 6\nThreadset cost.pause_ms 3\n1.5failed heap_dump 12\nno such luckend - 0\n"
    result = dumper.send(:call, "finalize", dumper.capture, "--records", stdin: records)
    assert_equal 5, result.status, result
    meta = meta(dumper.capture)
    assert_equal [nil, nil, "no such luck"], meta["reports"].map { |report| report["error"] }
    assert_equal 1.5, meta.dig("cost", "pause_ms")
    assert_equal "Thread", report(dumper.capture, "threads")
  end

  # The worker is killed while it writes: half a report is not a report, and the whole ones are kept.
  def test_records_that_end_too_early_lose_only_what_is_not_whole
    dumper = granted("gc_stat", "threads", "ruby")
    result = dumper.send(:call, "finalize", dumper.capture, "--records", stdin: "report gc_stat 2\n{}report threads 500\nThre")
    assert_equal 5, result.status, result
    errors = meta(dumper.capture)["reports"].map { |report| report["error"] }
    assert_nil errors.first
    errors.drop(1).each { |error| assert_match(/ended before it was done/, error) }
  end

  def test_records_that_are_none_are_refused_with_the_reason
    dumper = granted("gc_stat")
    result = dumper.send(:call, "finalize", dumper.capture, "--records", stdin: "report gc_stat\n{}")
    assert_equal 2, result.status, result
    assert_match(/"report gc_stat" is not KIND NAME LENGTH/, result.err)
    assert_equal 0, dumper.send(:call, "finalize", dumper.capture, "--records", stdin: "report gc_stat 2\n{}end - 0\n").status
  end

  # Reports that were stored under the lease are published by the next grant. Nothing is added afterwards.
  def test_work_under_a_lost_lease_is_never_published
    stale = granted("gc_stat", "threads")
    stale.put("gc_stat", "before")
    stale.lease.flock(File::LOCK_UN)
    current = granted("gc_stat")
    refute stale.put("threads", "stale").ok?
    refute stale.finalize.ok?
    assert current.put("gc_stat", "current").ok?
    assert current.finalize.ok?
    assert_equal [stale.capture, current.capture].sort, Dir.children(File.join(@store, "reports")).sort
    assert_equal [true, false], meta(stale.capture)["reports"].map { |report| report["error"].nil? }
    assert_equal "before", report(stale.capture, "gc_stat")
    assert_equal "current", diagctl!("fetch", "latest:gc_stat", "-o", "-").out
  end

  def test_stale_put_in_progress_is_quarantined_or_discarded
    stale = granted("heap_dump")
    pipe, put = stale.start_put("heap_dump")
    pipe.write("stale\n" * 50_000)
    stale.lease.flock(File::LOCK_UN)
    current = granted("heap_dump")
    pipe.write("stale\n")
    pipe.close
    _, status = Process.wait2(put)
    refute status.success?, "a put that lost its lease succeeded"
    assert current.put("heap_dump", E2E.dump("current")).ok?
    assert current.finalize.ok?
    assert_equal [current.capture], Dir.children(File.join(@store, "reports"))
    assert_nothing_staged
  end

  def test_finalize_without_the_lease_is_refused
    dumper = granted("gc_stat")
    dumper.put("gc_stat", "{}")
    stranger = holder
    result = stranger.finalize(id: dumper.capture)
    assert_equal 1, result.status, result
    assert_match(/lease/, result.err)
    assert_empty captures
  end

  def test_descriptor_that_is_not_the_lease_file_is_refused
    other = File.join(@root, "other")
    FileUtils.mkdir_p(@store, mode: 0o700)
    File.open(other, File::RDWR | File::CREAT, 0o600) do |file|
      result = diagctl("acquire", "--lease-fd", file.fileno, "--pid", Process.pid, file.fileno => file.fileno)
      assert_equal 1, result.status, result
      assert_match(/lease/, result.err)
    end
    result = diagctl("acquire", "--lease-fd", "77", "--pid", Process.pid)
    assert_includes [1, 2], result.status, result
  end

  def test_captures_are_not_overwritten_and_ids_are_checked
    dumper = granted("gc_stat")
    ["../../etc", "..", "", "x/y", "20200101T000000000Z-00000000"].each do |id|
      refute dumper.put("gc_stat", "{}", id: id).ok?, id
    end
    refute dumper.put("../../gc_stat", "{}").ok?
    assert_equal [dumper.capture], Dir.children(File.join(@store, "staging"))
  end

  def test_disabled_says_so
    configure
    dumper = holder(env: env(DIAGCTL_ENABLED: "0"))
    assert_equal 10, dumper.acquire.status
    assert_equal "disabled", dumper.answer.fetch("verdict")
  end
end
