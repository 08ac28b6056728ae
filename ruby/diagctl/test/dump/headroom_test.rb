# frozen_string_literal: true

require_relative "../helper"

class HeadroomTest < Minitest::Test
  include Sandbox

  MIB = 1 << 20

  def file(name, text)
    File.join(@dir, name).tap { |path| File.write(path, text) }
  end

  def cgroup(used:, cached:)
    { "of" => "cgroup x", "reserve" => 32 * MIB, "limit" => 512 * MIB, "used" => file("used", "#{used * MIB}\n"),
      "stat" => file("stat", "inactive_anon 9\ntotal_inactive_file 7\ninactive_file #{cached * MIB}\n"),
      "droppable" => "inactive_file" }
  end

  def host(available)
    { "of" => "the host", "reserve" => 100 * MIB,
      "meminfo" => file("meminfo", "MemTotal: 999 kB\nMemFree: 1 kB\nMemAvailable:  #{available * 1024} kB\n") }
  end

  def shortage(*watches)
    headroom = Diagctl::Headroom.new(watches)
    headroom.shortage
  ensure
    headroom.close
  end

  def test_free_memory_is_the_limit_minus_the_working_set
    assert_nil shortage(cgroup(used: 400, cached: 0))
    assert_nil shortage(cgroup(used: 505, cached: 100)), "page cache can be dropped"
    assert_equal "memory ran short: cgroup x has 17.0 MiB free, and a dump needs 32.0 MiB",
      shortage(cgroup(used: 505, cached: 10))
  end

  def test_the_memory_of_the_host_counts_too
    assert_nil shortage(cgroup(used: 1, cached: 0), host(101))
    assert_match(/the host has 99.0 MiB free/, shortage(cgroup(used: 1, cached: 0), host(99)))
  end

  def test_an_unreadable_limit_is_ignored
    gone = cgroup(used: 511, cached: 0).merge("used" => "/nonexistent")
    assert_nil shortage(gone, { "of" => "a later kind", "reserve" => 1 })
    assert_match(/the host/, shortage(gone, host(1)))
    emptied = Diagctl::Headroom.new([cgroup(used: 511, cached: 0)])
    File.truncate(File.join(@dir, "used"), 0)
    assert_nil emptied.shortage
    emptied.close
  end

  # The program may be of another version. A number in place of a path would be taken for a descriptor of the application, and
  # closed.
  def test_an_invalid_limit_is_skipped
    theirs = File.open(__FILE__)
    right = cgroup(used: 511, cached: 0)
    open = Dir.children("/proc/self/fd").size
    [right.merge("used" => theirs.fileno), right.merge("stat" => theirs.fileno), right.merge("limit" => "512MiB"),
      right.merge("reserve" => "32MiB"), right.merge("droppable" => 7), right.merge("used" => "a\0b"), host(1).merge("meminfo" => theirs.fileno),
      right.merge("of" => 5, "stat" => "/nonexistent")].each { |watch| assert_nil shortage(watch), watch.inspect }
    assert_equal open, Dir.children("/proc/self/fd").size
    assert theirs.gets
  ensure
    theirs.close
  end

  def test_a_check_allocates_almost_nothing
    headroom = Diagctl::Headroom.new([cgroup(used: 1, cached: 0), host(1000)])
    headroom.shortage
    before = GC.stat(:total_allocated_objects)
    100.times { headroom.shortage }
    assert_operator GC.stat(:total_allocated_objects) - before, :<, 1500
    headroom.close
  end
end
