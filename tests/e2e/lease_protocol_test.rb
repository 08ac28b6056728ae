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

  def test_lease_is_free_when_the_last_copy_is_closed_and_leftovers_are_cleaned
    first = granted("gc_stat")
    first.put("gc_stat", "{}")
    first.close
    second = granted("gc_stat")
    assert_equal [second.capture], Dir.children(File.join(@store, "staging"))
    refute_includes captures.map { |capture| capture["id"] }, first.capture
  end

  def test_work_under_a_lost_lease_is_never_published
    stale = granted("gc_stat")
    stale.put("gc_stat", "stale")
    stale.lease.flock(File::LOCK_UN)
    current = granted("gc_stat")
    refute stale.put("gc_stat", "stale").ok?
    refute stale.finalize.ok?
    assert current.put("gc_stat", "current").ok?
    assert current.finalize.ok?
    assert_equal [current.capture], Dir.children(File.join(@store, "reports"))
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
