# frozen_string_literal: true

require "etc"
require_relative "support/e2e"

# A store that is missing, somebody else's, newer, or partly replaced: it is refused or repaired, and nothing behind it is touched.
class BadStoreTest < E2E::Case
  def test_missing_store_is_empty_to_readers
    result = diagctl("list", "--dir", "#{@root}/never/made")
    assert_includes [0, 1, 4], result.status, result
    refute_path_exists "#{@root}/never"
  end

  def test_store_whose_parent_is_missing_is_a_clear_error
    result = diagctl("--dir", "#{@root}/never/made", "request", "gc_stat", "--reason", "x")
    assert_equal 1, result.status, result
    assert_includes result.err, "#{@root}/never"
  end

  # Kubernetes opens a volume anew at each mount. An owner closes what is its own.
  def test_a_store_that_was_opened_to_all_is_closed_by_its_owner
    store_capture
    File.chmod(0o777, @store)
    diagctl!("request", "gc_stat", "--reason", "x")
    assert_equal 0o700, File.stat(@store).mode & 0o777
    assert_equal 1, captures.size
  end

  def test_store_of_another_owner_is_refused
    if Process.uid.zero?
      store_capture
      FileUtils.cp(E2E::BIN, "#{@root}/diagctl")
      FileUtils.chmod(0o755, "#{@root}/diagctl")
      File.chmod(0o755, @store)
      result = command("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "#{@root}/diagctl", "request", "gc_stat", "--reason", "x")
    else
      result = diagctl("--dir", "/usr", "request", "gc_stat", "--reason", "x")
    end
    assert_equal 1, result.status, result
    assert_match(/uid \d+, and this is uid \d+/, result.err)
  end

  # Like systemd-coredump, root first takes the owner's identity, so that the workers can read what was written.
  def test_root_takes_the_identity_of_the_owner
    return assert_equal(Process.uid, File.stat(@root).uid) unless Process.uid.zero?

    nobody = Etc.getpwnam("nobody")
    FileUtils.mkdir_p(@store, mode: 0o700)
    File.chown(nobody.uid, nobody.gid, @store)
    diagctl!("request", "gc_stat", "--reason", "x")
    Dir.glob("#{@store}/**/*").each { |path| assert_equal nobody.uid, File.lstat(path).uid, path }
  end

  def test_lease_file_that_became_a_symlink_is_refused_and_its_target_untouched
    store_capture
    victim = File.join(@root, "victim")
    File.write(victim, "precious")
    lease = File.join(@store, "lease.lock")
    File.unlink(lease)
    File.symlink(victim, lease)
    File.open(victim, "r+") do |file|
      result = diagctl("acquire", "--lease-fd", file.fileno, "--pid", Process.pid, file.fileno => file.fileno)
      assert_equal 1, result.status, result
      assert_match(/lease/, result.err)
    end
    result = diagctl("run", "--report", "notes", "--", "echo", "hello")
    assert_equal 1, result.status, result
    assert_match(/lease\.lock/, result.err)
    assert_equal "precious", File.read(victim)
    assert_equal 1, Dir.children(File.join(@store, "reports")).size
  end

  def test_store_of_a_newer_version_is_not_written
    id = store_capture
    File.write(File.join(@store, "FORMAT"), "2\n")
    result = diagctl("rm", id)
    assert_equal 6, result.status, result
    result = holder.acquire
    assert_equal 6, result.status, result
    assert_path_exists File.join(@store, "reports", id)
  end

  # A command that replaces its directory must not redirect diagctl.
  def test_staging_directory_replaced_by_a_symlink_is_refused_and_nothing_behind_it_is_touched
    victim = File.join(@root, "victim")
    FileUtils.mkdir_p(File.join(victim, "sub"))
    %w[a.txt a.log sub/deep].each { |name| File.write(File.join(victim, name), name) }
    result = diagctl("run", "--", "sh", "-c", "rm -rf $DIAGCTL_CAPTURE_DIR; ln -s #{victim} $DIAGCTL_CAPTURE_DIR")
    assert_equal 1, result.status, result
    assert_match(/symbolic link/, result.err)
    assert_equal %w[a.log a.txt sub], Dir.children(victim).sort
    assert_equal "sub/deep", File.read(File.join(victim, "sub/deep"))
    assert_empty captures
    store_capture
  end

  def test_part_of_the_store_replaced_by_a_symlink_is_refused
    store_capture
    victim = File.join(@root, "victim")
    FileUtils.mkdir_p(File.join(victim, "sub"))
    %w[trash staging reports requests quarantine samples].each do |part|
      path = File.join(@store, part)
      File.rename(path, "#{path}.away")
      File.symlink(victim, path)
      [%w[gc], %w[run -- true], %w[request gc_stat --reason x], %w[list]].each do |argv|
        result = diagctl(*argv)
        assert_equal 1, result.status, result
        assert_match(/#{part} is a symbolic link/, result.err)
      end
      assert_equal 1, holder.acquire.status
      assert_equal %w[sub], Dir.children(victim)
      File.delete(path)
      File.rename("#{path}.away", path)
    end
    assert_equal 1, captures.size
  end

  def test_removed_part_of_the_store_is_recreated
    store_capture
    %w[trash staging requests quarantine samples].each { |part| FileUtils.rm_rf(File.join(@store, part)) }
    diagctl!("status")
    store_capture
    assert_equal 2, captures.size
  end

  private

  def command(*argv) = E2E::Command.run(*argv, env: env)
end
