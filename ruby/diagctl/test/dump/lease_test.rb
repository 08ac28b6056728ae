# frozen_string_literal: true

require_relative "../helper"

class LeaseTest < Minitest::Test
  include Sandbox

  def test_the_file_is_created_private_and_closed_on_exec
    Diagctl::Lease.open(@store) do |lease|
      assert_equal 0o600, lease.io.stat.mode & 0o777
      assert_predicate lease.io, :close_on_exec?
      refute_equal Diagctl::Spawn::LEASE_FD, lease.io.fileno
    end
    assert_nil Diagctl::Lease.in_flight
  end

  def test_every_open_creates_its_own_file_description
    Diagctl::Lease.open(@store) do |one|
      assert_equal 0, one.io.flock(File::LOCK_EX | File::LOCK_NB)
      refute lease_free?
    end
    assert lease_free?
  end

  def test_a_symbolic_link_is_not_followed
    target = File.join(@dir, "precious")
    File.write(target, "x")
    File.symlink(target, File.join(@store, "lease.lock"))
    error = assert_raises(Diagctl::Problem) { Diagctl::Lease.open(@store) { flunk } }
    assert_match(/lease.lock is a symbolic link and is not followed \(hint/, error.message)
    assert_equal "x", File.read(target)
  end

  def test_a_missing_store_is_a_problem
    error = assert_raises(Diagctl::Problem) { Diagctl::Lease.open("/nonexistent/store") { flunk } }
    assert_match(/cannot be opened: .*hint/, error.message)
  end

  def test_root_gives_the_file_it_creates_to_the_owner_of_the_store
    skip "not root" unless Process.euid.zero?

    File.chown(65_534, 65_534, @store)
    Diagctl::Lease.open(@store) { |_| }
    assert_equal 65_534, File.stat(File.join(@store, "lease.lock")).uid
  end
end
