# frozen_string_literal: true

require_relative "support/scenes"

# An attacker swaps a directory for a symbolic link to a victim and back while commands run. There is no moment between a check
# and a use at which the link is followed, because nothing in a store is opened by its whole path. Victims are directories of
# the test's own.
class SwapTest < Torture::Case
  include Torture::Scenes

  # The name of a planted entry that an attacker would want diagctl to read or to delete.
  PLANTED = "20200101T000000000Z-deadbeef"
  MARK = "swapped-in"
  # Created by the test itself, which opens the lease file by its path, as a plugin does.
  MAY_APPEAR = %w[store store/lease.lock].freeze
  LONG_AGO = Time.at(1_000_000_000)
  ROUNDS = Torture::FULL ? 200 : 10

  # A separate process that swaps two names continuously.
  SWAPPER = <<~RUBY
    types = [Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP, Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP, Fiddle::TYPE_INT]
    rename = Fiddle::Function.new(Fiddle::Handle::DEFAULT["renameat2"], types, Fiddle::TYPE_INT)
    at_fdcwd, exchange = -100, 2
    Process.ppid == Integer(ARGV[2]) or exit!
    loop do
      rename.call(at_fdcwd, ARGV[0], at_fdcwd, ARGV[1], exchange).zero? or abort "renameat2 failed"
      exit! if Process.ppid != Integer(ARGV[2])
      sleep(rand / 2000)
    end
  RUBY

  %w[reports staging quarantine trash requests samples].each do |part|
    define_method(:"test_swapping_#{part}_for_a_link_has_no_effect") do
      store_capture
      diagctl!("pin", store_capture)
      victim = plant(File.join(@root, "victim"), PLANTED => %w[meta.json gc_stat.json.gz .grant.json data], "#{PLANTED}.json" => nil, "4711.json" => nil)
      said = swapping(File.join(@store, part), victim) { use }
      refute_includes said, MARK
      assert_untouched(victim)
      assert_works
    end
  end

  # A directory that is not a store must not become part of one.
  def test_swapping_a_directory_above_the_store_for_a_link_has_no_effect
    above = File.join(@root, "above")
    Dir.mkdir(above)
    @store = File.join(above, "store")
    store_capture
    things = %w[staging requests samples quarantine trash].to_h { |part| ["store/#{part}/x", nil] }
    victim = plant(File.join(@root, "victim"), "store/reports/#{PLANTED}" => %w[meta.json gc_stat.json.gz], "store/a_file_of_mine" => nil, **things)
    # That such a path is opened and found not to be a store is normal: an operator's mistake would look the same.
    @planted -= %w[store]
    said = swapping(above, victim) { use }
    refute_includes said, MARK
    assert_untouched(victim)
    assert_works
  end

  # The reason why swaps have no effect: of all system calls that take a path, only one contains the path of the store.
  def test_nothing_in_a_store_is_opened_by_its_whole_path
    %w[request put finalize gc rm pin].map { |name| scene(name) }.each do |scene|
      log = File.join(@root, "#{scene.name}.log")
      copy_of(scene.store) do |store|
        result = traced(scene, store, "-y", "-e", "trace=%file", "-o", log)
        assert_includes [0, 5], result.status, result
        named = File.readlines(log).grep(/"#{Regexp.escape(store)}/).grep_v(/execve\(/)
        assert_equal 1, named.size, named.join
        assert_match(/openat\(AT_FDCWD[^"]*"#{Regexp.escape(store)}", O_RDONLY(\|O_LARGEFILE)?\|O_NOFOLLOW\|O_CLOEXEC\|O_PATH\)/, named.first)
        beneath = File.readlines(log).grep(/openat2\(/)
        assert beneath.all?(/RESOLVE_BENEATH/) && beneath.all?(/RESOLVE_NO_SYMLINKS/), beneath.join
        refute_empty beneath
      end
    end
  end

  # As on old kernels and under old seccomp filters.
  def test_without_openat2_every_command_works
    all = scenes
    %w[ENOSYS EPERM].each do |error|
      all.each do |scene|
        copy_of(scene.store) do |store|
          result = traced(scene, store, "-o", "/dev/null", "-e", "inject=openat2:error=#{error}")
          assert_includes [0, 5], result.status, "#{scene.name} with #{error}: #{result}"
        end
      end
    end
  end

  # With a second name for a file, its owner could be made to write to another of their files.
  def test_a_hard_link_in_place_of_a_file_changes_nothing_elsewhere
    store_capture
    files(@store).select { |file| File.file?(File.join(@store, file)) }.each do |file|
      copy_of(@store) do |store|
        victim = "#{store}.victim"
        File.write(victim, "precious\n")
        File.delete(File.join(store, file))
        File.link(victim, File.join(store, file))
        [%w[list], %w[status], %w[request gc_stat --reason x], %w[pin latest], %w[gc], %w[run -- true], %w[rm latest]].each do |argv|
          result = on(store, *argv, deadline: 20)
          assert_includes [0, 1, 4, 5, 6], result.status, "#{file}: #{result}"
        end
        assert_equal ["precious\n", 0o644], [File.read(victim), File.stat(victim).mode & 0o777], file
        File.delete(victim)
      end
    end
  end

  private

  def plant(victim, things)
    things.each do |name, files|
      path = File.join(victim, name)
      FileUtils.mkdir_p(files ? path : File.dirname(path))
      (files&.map { |file| File.join(path, file) } || [path]).each { |file| File.write(file, meta(name)) }
    end
    @planted = names(victim)
    # Reading a file changes its access time: with relatime, the kernel skips the update only if the access time is later than
    # the modification time.
    @planted.each { |path| File.utime(LONG_AGO, LONG_AGO, File.join(victim, path)) }
    victim
  end

  def names(victim) = Dir.glob("**/*", File::FNM_DOTMATCH, base: victim).reject { |path| path.end_with?("..") }.sort

  # Returns a record that diagctl would accept.
  def meta(name) = JSON.generate(schema: 1, id: File.basename(name), sequence: 1, store_ms: 1, rule: MARK, reports: [])

  def assert_untouched(victim)
    @planted.each do |path|
      stat = File.lstat(File.join(victim, path))
      assert_equal [LONG_AGO, LONG_AGO], [stat.atime, stat.mtime], "#{path} was read or changed"
    end
    assert_empty names(victim) - @planted - MAY_APPEAR
  end

  # Runs the block while the two names are swapped. Returns everything that its commands printed, and then puts each name back.
  def swapping(path, victim)
    link = "#{path}.link"
    link = File.join(@root, "link") if path.start_with?("#{@store}/")
    File.symlink(victim, link)
    swapper = Process.spawn(RbConfig.ruby, "-rfiddle", "-e", SWAPPER, path, link, Process.pid.to_s)
    E2E.wait_until("the swapper swaps") { File.symlink?(path) }
    results = yield
    assert_nil Process.wait(swapper, Process::WNOHANG), "the swapper swapped to the end"
    results.each { |result| refute_match(/panicked/, result.err) }
    results.map { |result| result.out + result.err }.join
  ensure
    Process.kill(:KILL, swapper)
    Process.wait(swapper)
    File.symlink?(path) and File.rename(path, "#{link}.away") and File.rename(link, path)
  end

  # Runs commands that read, write and delete, many times. Most are refused, because a check falls into the wrong moment.
  def use
    results = []
    ROUNDS.times do
      results.concat([%w[list --json], %w[gc], %w[request gc_stat --reason x], ["rm", PLANTED], %w[status]].map { |argv| diagctl(*argv) })
      dumper = holder
      results << dumper.acquire
      results << dumper.put("gc_stat", "{}") << dumper.finalize if dumper.granted?
      dumper.close
    rescue SystemCallError
      nil # the lease file itself could not be opened
    end
    results
  end

  def assert_works
    assert diagctl("list").ok?
    store_capture
  end
end
