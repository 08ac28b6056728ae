# frozen_string_literal: true

require_relative "support/mounts"
require_relative "support/scenes"

# A power cut at each step of every command that changes a store. The command is stopped before a system call, its ext4 is shut
# down without flushing the journal, and the filesystem is mounted again. Acknowledged captures must be whole.
class PowerCutTest < Torture::Case
  include Torture::Scenes

  # The calls that change a filesystem or make changes durable. Before any other call there is nothing new to lose.
  STEPS = %w[openat openat2 write fsync fdatasync rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir chmod fchmod ftruncate exit_group].freeze

  # Prevents periodic commits, so that nothing becomes durable by itself during a test.
  MOUNT = ["-o", "loop,commit=300"].freeze

  def setup
    super
    why = Torture::Mounts.refusal
    skip("no power cut without an ext4 of our own: #{why}") if why
    @image = File.join(@root, "disk.img")
    @disk = File.join(@root, "disk")
  end

  def test_power_cut_before_every_step
    runs = scenes.flat_map do |scene|
      steps = calls(scene).select { |name, _| STEPS.include?(name) }
      Torture.sample(steps, 4).map { |name, n| [scene, "#{name}:signal=SIGKILL:when=#{n}"] }
    end
    runs.group_by(&:first).each do |scene, of_scene|
      make_disk(scene.store)
      of_scene.each { |_, inject| cut_and_check(scene, "inject=#{inject}") }
    end
    warn "#{name}: #{runs.size} power cuts"
  end

  def test_power_cut_right_after_each_acknowledgement
    scenes.each do |scene|
      make_disk(scene.store)
      cut_and_check(scene, "trace=none") { |store, result| assert_durable(scene, store, result) }
    end
  end

  # The other tests prove nothing if captures survive without syncs.
  def test_without_syncs_a_power_cut_loses_acknowledged_captures
    scene = scene("finalize")
    make_disk(scene.store)
    store, result = run_and_cut(scene, "inject=fsync,fdatasync:retval=0")
    assert_includes [0, 5], result.status, result
    Torture::Mounts.mounted(@disk, *MOUNT, @cut) do
      meta = File.join(store, "reports", scene.id, "meta.json")
      refute(File.exist?(meta) && File.size(meta).positive?, "the capture survived without having been synced")
    end
  end

  private

  # Creates an ext4 with a store, cleanly unmounted.
  def make_disk(template)
    FileUtils.rm_f(@image)
    File.open(@image, "w") { |file| file.truncate(24 << 20) }
    Torture::Mounts.command("mkfs.ext4", "-q", "-F", "-m", "0", @image)
    Torture::Mounts.mounted(@disk, "-o", "loop", @image) { FileUtils.cp_r(template, File.join(@disk, "store"), preserve: true) }
  end

  # Runs a scene's command on a copy of the disk and cuts the power. The copy is left unmounted.
  def run_and_cut(scene, flag)
    @cut = File.join(@root, "cut.img")
    Torture::Mounts.command("cp", "--sparse=always", @image, @cut)
    store = File.join(@disk, "store")
    result = nil
    Torture::Mounts.mounted(@disk, *MOUNT, @cut) do
      result = traced(scene, store, "-o", "/dev/null", "-e", flag)
      Torture::Mounts.cut_power(@disk)
    end
    [store, result]
  end

  def cut_and_check(scene, flag)
    store, result = run_and_cut(scene, flag)
    Torture::Mounts.mounted(@disk, *MOUNT, @cut) do
      what = "#{scene.name}, #{flag}, then a power cut: #{result}"
      yield store, result if block_given?
      assert_sound(store, kept: left_of(scene, store), what: what)
    end
  end

  # Asserts that everything the command acknowledged is still done.
  def assert_durable(scene, store, result)
    assert_includes [0, 5], result.status, result
    case scene.name
    when "finalize" then refute_empty checksums(store, scene.id)
    when "request", "create" then assert_path_exists File.join(store, "requests", "#{result.out.strip}.json")
    when "pin" then assert_path_exists File.join(store, "reports", scene.id, "pinned")
    when "acquire" then assert_charged(scene, store, result)
    end
  end

  # The grant is lost with its dumper, but its charge is not: limits count it.
  def assert_charged(scene, store, result)
    generation = ->(dir) { JSON.parse(File.read(File.join(dir, "state.json"))).fetch("generation") }
    assert_equal "granted", result.json.fetch("verdict")
    assert_equal generation.(scene.store) + 1, generation.(store)
  end
end
