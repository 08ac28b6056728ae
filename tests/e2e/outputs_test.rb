# frozen_string_literal: true

require_relative "support/e2e"

# The destinations of results, and the errors when a result cannot be written.
class OutputsTest < E2E::Case
  NOBODY = 65_534

  def test_what_cannot_be_printed_because_stdout_is_closed_is_a_failure
    id = store_capture
    [%w[list], %w[list --json], %w[status], %w[samples], ["fetch", "#{id}:gc_stat", "-o", "-"], %w[--help]].each do |argv|
      result = shell("#{argv.join(' ')} >&-")
      assert_equal 1, result.status, result
      assert_match(/cannot write to stdout/, result.err)
    end
    assert shell("fetch #{id}:gc_stat -o fetched >&-").status == 1, "the file's name cannot be printed"
    assert_path_exists File.join(@root, "fetched")
  end

  def test_a_time_zone_that_names_a_device_or_a_fifo_costs_nothing
    store_capture
    fifo = File.join(@root, "fifo").tap { |path| File.mkfifo(path) }
    ["/dev/zero", ":/dev/zero", "../../../../../dev/zero", fifo, "bogus", "/etc/passwd"].each do |zone|
      result = diagctl("list", env: env(TZ: zone), deadline: 20, rlimit_as: 2 << 30)
      assert_equal 0, result.status, "TZ=#{zone}: #{result}"
      assert_includes result.out, "CREATED (UTC)"
    end
  end

  def test_a_thread_that_cannot_be_had_is_an_error_and_no_panic
    needs_root
    id = store_capture
    # RLIMIT_NPROC does not bind root.
    FileUtils.chown_R(NOBODY, NOBODY, @root)
    FileUtils.cp(E2E::BIN, File.join(@root, "diagctl"))
    as_nobody = ["setpriv", "--reuid=#{NOBODY}", "--regid=#{NOBODY}", "--clear-groups", "prlimit", "--nproc=1", File.join(@root, "diagctl")]
    [%w[status], ["fetch", "#{id}:gc_stat", "-o", File.join(@root, "x")], %w[doctor]].each do |argv|
      result = E2E::Command.run(*as_nobody, *argv, env: env)
      refute_match(/panicked/, result.err)
      assert_equal 1, result.status, result
      assert_match(/cannot start a thread/, result.out + result.err)
    end
  end

  def test_fetch_writes_into_nothing_of_somebody_elses
    needs_root
    id = store_capture
    foreign = File.join(@root, "foreign").tap { |path| File.write(path, "theirs") }
    fifo = File.join(@root, "fifo").tap { |path| File.mkfifo(path) }
    link = File.join(@root, "link").tap { |path| File.symlink(foreign, path) }
    File.chown(NOBODY, NOBODY, foreign, fifo)
    [foreign, fifo, link].each do |path|
      result = diagctl("fetch", "#{id}:gc_stat", "-o", path, deadline: 20)
      assert_equal 1, result.status, result
      assert_match(/belongs to somebody else \(uid #{NOBODY}\)/, result.err)
    end
    assert_equal "theirs", File.read(foreign)
    # The caller's own FIFO, a device and an inherited descriptor are fine.
    own = File.join(@root, "own").tap { |path| File.mkfifo(path) }
    reader = Thread.new { File.read(own) }
    diagctl!("fetch", "#{id}:gc_stat", "-o", own)
    assert_equal "{}", reader.value
    diagctl!("fetch", "#{id}:gc_stat", "-o", "/dev/null")
    assert_equal "{}", diagctl!("fetch", "#{id}:gc_stat", "-o", "/dev/stdout").out
  end

  def test_fetch_writes_nothing_into_the_store
    id = store_capture
    File.symlink(@store, File.join(@root, "link"))
    before = Dir.glob("**/*", base: @store).sort
    ["#{@store}/x", "#{@store}/reports/#{id}/meta.json", File.join(@root, "link", "reports"), "store/new"].each do |path|
      [[id, "gc_stat"], [id]].each do |what|
        result = diagctl("fetch", *what, "-o", path, "--force", chdir: @root)
        assert_equal 2, result.status, result
        assert_match(/is in the store itself/, result.err)
      end
    end
    assert_equal 2, diagctl("fetch", id, chdir: @store).status
    assert_equal before, Dir.glob("**/*", base: @store).sort
  end

  private

  def needs_root = Process.euid.zero? || skip("needs root")

  def shell(line) = E2E::Command.run("/bin/sh", "-c", "exec \"$0\" #{line}", E2E::BIN, env: env, chdir: @root)
end
