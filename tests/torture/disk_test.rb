# frozen_string_literal: true

require_relative "support/mounts"
require_relative "support/scenes"

# Disks that are full (in bytes, inodes or quota), that have become read-only, or whose kind may not support locks; and the
# store's cap, checked while it is being reached.
class DiskTest < Torture::Case
  include Torture::Scenes

  PAGE = 4096

  def setup
    super
    why = Torture::Mounts.refusal
    skip("no filesystem of our own: #{why}") if why
    @disk = File.join(@root, "disk")
  end

  # (A size of 0 would mean no limit.) The disk grows by a page each time until the command succeeds, so that each write finds
  # it full once.
  def test_every_command_on_a_disk_that_fills_up_at_each_write
    filling("size=64m") { |step, used| "size=#{[used[:bytes] + (step * PAGE), PAGE].max}" }
  end

  def test_every_command_on_a_disk_without_inodes
    filling("nr_inodes=10000") { |step, used| "nr_inodes=#{used[:inodes] + step}" }
  end

  def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written
    id = store_capture
    Torture::Mounts.mounted(@disk, "-t", "tmpfs", "none") do
      move_store_to_disk
      Torture::Mounts.mount(@disk, "-o", "remount,ro")
      [%w[list], %w[show latest], %W[fetch #{id} gc_stat -o -], %w[status --explain]].each { |argv| diagctl!(*argv) }
      [%w[request gc_stat --reason x], ["rm", id], ["pin", id], %w[pause], %w[run -- true]].each do |argv|
        result = diagctl(*argv)
        assert_equal 1, result.status, result
        assert_match(/[Rr]ead-only/, result.err)
      end
      File.open(File.join(@store, "lease.lock")) do |lease|
        result = diagctl("acquire", "--lease-fd", lease.fileno, "--pid", Process.pid, lease.fileno => lease.fileno)
        assert_equal 1, result.status, result
        assert_match(/[Rr]ead-only/, result.err)
      end
    end
  end

  def test_a_result_that_cannot_be_printed_is_a_failure_and_loses_nothing
    scene = scene("finalize")
    copy_of(scene.store) do |store|
      result = perform(scene, store, "sh", "-c", 'exec "$@" > /dev/full', "sh")
      assert_equal 1, result.status, result
      assert_match(/stdout/, result.err)
      refute_empty checksums(store, scene.id), "it was published all the same"
      %w[list status].each { |command| assert_match(/stdout/, E2E::Command.run("sh", "-c", "#{E2E::BIN} --dir #{store} #{command} > /dev/full", env: env).err) }
      assert_sound(store, kept: scene.kept, what: result.to_s)
    end
  end

  # Writes that are cut short and then fail: the size limit of the process, with its signal ignored.
  def test_short_writes
    runs = %w[put finalize acquire request].flat_map do |name|
      scene = scene(name)
      Torture.sample((0..(Torture::FULL ? 200 : 40)).to_a, 4).map { |n| [scene, n * 97] }
    end
    Torture.each_parallel(runs) do |scene, limit|
      copy_of(scene.store) do |store|
        result = perform(scene, store, "sh", "-c", "trap '' XFSZ; exec prlimit --fsize=#{limit} -- \"$@\"", "sh") do |lease, answered|
          finish_granted(store, lease, answered) if scene.name == "acquire" && answered.status.zero?
        end
        what = "#{scene.name} with files of #{limit} bytes: #{result}"
        assert_no_false_claim(scene, store, result, what)
        assert_sound(store, kept: left_of(scene, store), what: what)
      end
    end
  end

  def test_quota_of_the_owner
    image = File.join(@root, "disk.img")
    File.open(image, "w") { |file| file.truncate(32 << 20) }
    Torture::Mounts.command("mkfs.ext4", "-q", "-F", "-O", "quota", image)
    without_quota = E2E::Command.run("unshare", "--mount", "mount", "-o", "loop,usrquota", image, "/mnt", env: env)
    skip("this kernel has no quota for ext4 (EDQUOT is injected by syscalls_test.rb): #{without_quota.err}") unless without_quota.ok?
    Torture::Mounts.mounted(@disk, "-o", "loop,usrquota", image) do
      File.chmod(0o755, @disk)
      device = File.readlines("/proc/mounts").map(&:split).find { |_, dir| dir == @disk }.first
      @store = File.join(@disk, "store")
      Dir.mkdir(@store, 0o700)
      # Created as a worker would, which is not root: quotas do not apply to root.
      File.write(File.join(@store, "lease.lock"), "")
      File.chown(Torture::NOBODY, Torture::NOBODY, @store, File.join(@store, "lease.lock"))
      kept = store_capture("gc_stat" => "{}") && acknowledged(@store)
      Torture::Mounts.quota(device, Torture::NOBODY, 256)
      dumper = granted("heap_dump")
      results = [dumper.put("heap_dump", E2E.dump(Random.bytes(400_000))), dumper.finalize]
      assert results.none?(&:ok?), results.join
      assert_match(/quota|space/i, results.map(&:err).join)
      dumper.close
      assert_sound(@store, kept: kept, what: results.join)
    end
  end

  def test_overlay_works_like_a_disk
    parts = %w[lower upper work].map { |name| File.join(@root, "tmpfs", name) }
    Torture::Mounts.mounted(File.join(@root, "tmpfs"), "-t", "tmpfs", "none") do
      parts.each { |dir| Dir.mkdir(dir) }
      id = store_capture
      FileUtils.cp_r(@store, File.join(parts[0], "store"), preserve: true)
      options = "lowerdir=#{parts[0]},upperdir=#{parts[1]},workdir=#{parts[2]}"
      Torture::Mounts.mounted(@disk, "-t", "overlay", "overlay", "-o", options) do
        @store = File.join(@disk, "store")
        dumper = granted("gc_stat")
        other = holder
        assert_equal "busy", other.acquire.json.fetch("verdict"), "the lease excludes on overlay"
        [dumper, other].each(&:close)
        assert_sound(@store, kept: { id => checksums(@store, id) }, what: "on overlay")
      end
    end
  end

  # Stands for NFS, SMB, 9p and virtiofs, which cannot be mounted here. The filesystem is recognised by its magic number, from a
  # table with its own test.
  def test_a_filesystem_whose_locks_may_not_exclude_is_refused_unless_forced
    backing = File.join(@root, "backing")
    FileUtils.mkdir_p([backing, @disk])
    result = E2E::Command.run("bindfs", "--no-allow-other", backing, @disk, env: env)
    skip("no FUSE here: #{result}") unless result.ok?
    begin
      @store = File.join(@disk, "store")
      diagctl!("request", "gc_stat", "--reason", "x")
      dumper = holder
      assert_equal 10, dumper.acquire.status
      assert_equal %w[guarded filesystem], dumper.answer.values_at("verdict", "guard")
      assert_match(/FUSE.*flock.*allow_network_filesystem/, dumper.answer.fetch("reason"))
      dumper.close
      configure(head: "allow_network_filesystem = true")
      assert_sound(@store, kept: {}, what: "forced on FUSE")
    ensure
      Torture::Mounts.unmount(@disk)
    end
  end

  # Holds not only afterwards, but at every sample. The test asks the kernel, which knows the sum at one instant. A walk of the
  # tree could count both a file that is deleted after it was visited and a file that is written later in its place.
  def test_the_cap_holds_at_every_instant
    cap = 1 << 20
    configure(retention: "keep_free = \"1%\"\nmax_use = \"1MiB\"")
    store_capture
    Torture::Mounts.mounted(@disk, "-t", "tmpfs", "-o", "size=64m", "none") do
      move_store_to_disk
      peak, samples = peak_during do
        (Torture::FULL ? 60 : 12).times do |i|
          dumper = granted("heap_dump", "gc_stat")
          # Every third report is too big for the cap.
          dumper.put("heap_dump", Random.bytes((i % 3).zero? ? 2_000_000 : 250_000))
          dumper.put("gc_stat", "{}")
          dumper.finalize
          dumper.close
        end
      end
      assert_operator samples, :>, 50
      assert_operator peak, :<=, cap, "bytes in whole blocks, the directories included"
    end
  end

  private

  # Runs each scene on a small filesystem, first with no room at all and then with a little more each time, until it succeeds.
  def filling(plenty, &limit)
    runs = 0
    scenes.each do |scene|
      steps = Torture::FULL ? (0..400) : [0, 2, 5, 400]
      steps.find do |step|
        runs += 1
        succeeds_with_little?(scene, step, plenty, limit)
      end or flunk "#{scene.name} never succeeded"
    end
    warn "#{name}: #{runs} runs"
  end

  def succeeds_with_little?(scene, step, plenty, limit)
    Torture::Mounts.mounted(@disk, "-t", "tmpfs", "-o", "mode=755,#{plenty}", "none") do
      store = File.join(@disk, "store")
      FileUtils.cp_r(scene.store, store, preserve: true)
      # The file exists before the worker polls, because the worker opens it. Only the command is under test.
      File.open(File.join(store, "lease.lock"), File::RDWR | File::CREAT, 0o600, &:close)
      options = limit.call(step, used)
      Torture::Mounts.mount(@disk, "-o", "remount,#{options}")
      room = -> { Torture::Mounts.mount(@disk, "-o", "remount,#{plenty}") }
      result = perform(scene, store) do |lease, answered|
        room.call
        finish_granted(store, lease, answered) if scene.name == "acquire" && answered.status.zero?
      end
      room.call
      what = "#{scene.name} with #{step} more (#{options}): #{result}"
      assert_no_false_claim(scene, store, result, what)
      assert_sound(store, kept: left_of(scene, store), what: what)
      [0, 5].include?(result.status)
    end
  end

  # Returns the use of the small filesystem.
  def used
    blocks, inodes = %w[-B1 -i].map { |flag| E2E::Command.run("df", flag, @disk, env: ENV.to_h).out.lines.last.split[2].to_i }
    { bytes: blocks, inodes: inodes }
  end

  def move_store_to_disk
    FileUtils.cp_r(@store, File.join(@disk, "store"), preserve: true)
    @store = File.join(@disk, "store")
  end

  def peak_during
    peak = samples = 0
    running = true
    disk = File.open(@disk)
    at_rest = directories
    sampler = Thread.new do
      while running
        peak = [peak, Torture::Mounts.used(disk) + at_rest].max
        samples += 1
      end
    end
    yield
    running = false
    sampler.join
    [peak, samples]
  ensure
    running = false
    disk&.close
  end

  # Counts one block for each directory, as the store does but tmpfs does not. There are never fewer directories than at rest.
  def directories = PAGE * Dir.glob("#{@store}/*/").size
end
