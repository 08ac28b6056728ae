# frozen_string_literal: true

require_relative "support/torture"

# Attacks by other users: unexpected things in place of our files, a directory that others can write to, and a store planted by
# another user. All victims are files of the test's own.
class AttacksTest < Torture::Case
  OTHER = ["setpriv", "--reuid=#{Torture::NOBODY}", "--regid=#{Torture::NOBODY}", "--clear-groups"].freeze

  # Things that may be planted in place of one of our files.
  PLANTED = {
    "symbolic link" => ->(path, victim) { File.symlink(victim, path) },
    "dangling link" => ->(path, victim) { File.symlink("#{victim}.not-there", path) },
    "link to a directory" => ->(path, victim) { File.symlink(File.dirname(victim), path) },
    "FIFO" => ->(path, _) { File.mkfifo(path) },
    "directory" => ->(path, _) { Dir.mkdir(path) },
    "device" => ->(path, _) { system("mknod", path, "c", "1", "3", exception: true) }
  }.freeze

  def test_nothing_planted_in_place_of_a_file_is_followed_read_or_waited_for
    kinds = Process.euid.zero? ? PLANTED : PLANTED.except("device")
    places = our_files.product(kinds.to_a)
    Torture.each_parallel(Torture.sample(places, 24)) { |file, (kind, plant)| assert_harmless(file, kind, plant) }
  end

  def test_nothing_planted_under_a_temporary_name_is_used
    # The names cannot be guessed: they contain 32 random bits from the kernel. This checks that they are created with O_EXCL.
    log = File.join(@root, "log")
    E2E::Command.run("strace", "-f", "-e", "trace=openat,openat2", "-o", log, E2E::BIN, "request", "gc_stat", "--reason", "x", env: env)
    created = File.readlines(log).grep(/O_CREAT/).grep_v(/\.(lock|jsonl)"/)
    refute_empty created
    created.each { |line| assert_match(/\.tmp-\h{8}".*O_EXCL.*O_NOFOLLOW/, line) }
  end

  def test_another_user_can_neither_read_nor_lock_nor_plant_nor_fill
    needs_root
    id = store_capture
    before = files(@store)
    programs = [
      %w[list], %w[status], ["show", id], ["fetch", id, "gc_stat", "-o", "-"], %w[request gc_stat --reason x], ["rm", id], ["pin", id],
      %w[gc], %w[pause], %w[run -- true]
    ].map { |argv| [program, *argv] }
    shells = ["exec 7<>#{@store}/lease.lock", "exec 7<#{@store}/state.lock", "echo x > #{@store}/requests/x.json", "echo x > #{@store}/fill",
              "cat #{@store}/reports/*/meta.json", "ls #{@store}", "touch #{@store}", "mv #{@store} #{@store}.away", "rmdir #{@store}"]
    (programs + shells.map { |line| ["sh", "-c", line] }).each do |argv|
      result = other(*argv)
      refute result.ok?, result
      refute_includes result.out, id
    end
    assert_equal before, files(@store)
    store_capture
  end

  # flock(2) only requires that a file can be opened.
  def test_a_member_of_the_reading_group_cannot_hold_the_locks
    needs_root
    configure(head: 'group = "daemon"')
    store_capture
    %w[lease.lock state.lock].each { |name| File.chmod(0o640, File.join(@store, name)) } # the mode that earlier versions set
    store_capture
    member = ["setpriv", "--reuid=#{Torture::NOBODY}", "--regid=#{Torture::NOBODY}", "--groups=1"]
    %w[lease.lock state.lock].each do |name|
      refute E2E::Command.run(*member, "flock", "--nonblock", File.join(@store, name), "true", env: env).ok?, name
    end
    dumper = granted("gc_stat")
    status = E2E::Command.run(*member, program, "status", "--json", env: env)
    assert status.ok?, status
    assert status.json.dig("lease", "taken"), "who may read may still see that the lease is taken"
    dumper.close
    refute E2E::Command.run(*member, program, "status", "--json", env: env).json.dig("lease", "taken")
  end

  # Root takes the identity of a store's owner, so that workers can read what root wrote. It must not do so in a place where
  # anybody can create a store.
  def test_a_store_planted_in_a_world_writable_directory_gets_no_dump_from_root
    needs_root
    shared = File.join(@root, "shared")
    Dir.mkdir(shared)
    File.chmod(0o1777, shared)
    @store = File.join(shared, "store")
    other("mkdir", "-m", "0700", @store)
    other("sh", "-c", "umask 077; : > #{@store}/lease.lock")
    File.open(File.join(@store, "lease.lock"), "r+") do |lease|
      result = diagctl("acquire", "--lease-fd", lease.fileno, "--pid", Process.pid, lease.fileno => lease.fileno)
      assert_equal 1, result.status, result
      assert_match(/world-writable.*anybody could have made it/, result.err)
    end
    assert_equal 1, diagctl("run", "--", "true").status
    assert_empty Dir.glob("#{@store}/{staging,reports}/*")
  end

  # An fsGroup of Kubernetes opens every file of a volume at each mount.
  def test_a_store_that_was_opened_to_others_is_closed_by_its_owner
    id = store_capture
    meta = File.join(@store, "reports", id, "meta.json")
    [0o777, 0o1777, 0o2770, 0o702].each do |mode|
      [%w[list], %w[gc], %w[run --report out -- echo x], %w[request gc_stat --reason x]].each do |argv|
        File.chmod(mode, @store, File.join(@store, "reports"), File.dirname(meta))
        File.chmod(0o666, meta, File.join(@store, "state.json"))
        diagctl!(*argv)
        modes = [@store, File.dirname(meta), meta, File.join(@store, "state.json")].map { |path| File.stat(path).mode & 0o7777 }
        assert_equal [0o700, 0o700, 0o600, 0o600], modes, argv
      end
    end
    closed = File.foreach(File.join(@store, "events.jsonl")).map { |line| JSON.parse(line) }.select { |event| event["event"] == "closed" }
    assert_equal 16, closed.size
    diagctl!("list")
    assert_equal closed.size, File.foreach(File.join(@store, "events.jsonl")).count { |line| line.include?('"closed"') }, "said once"
  end

  def test_a_store_that_others_can_write_to_is_refused_for_what_they_put_there_and_before_it_is_a_store
    needs_root
    id = store_capture
    planted = File.join(@store, "reports", id, "planted")
    File.write(planted, "")
    File.chown(Torture::NOBODY, nil, planted)
    File.chmod(0o777, @store)
    [%w[list], %w[gc], %w[run -- true], %w[request gc_stat --reason x]].each do |argv|
      result = diagctl(*argv)
      assert_equal 1, result.status, result
      assert_match(/planted is owned by uid #{Torture::NOBODY}/, result.err)
      assert_equal 0o777, File.stat(@store).mode & 0o7777, "a person has to look at it"
    end
    [0o777, 0o1777, 0o770].each do |mode|
      empty = File.join(@root, "empty-#{mode}").tap { |path| Dir.mkdir(path) }
      File.chmod(mode, empty)
      result = diagctl("request", "gc_stat", "--reason", "x", env: env(DIAGCTL_DIR: empty))
      assert_equal 1, result.status, result
      assert_match(/writable.*others could plant/, result.err)
      assert_empty Dir.children(empty)
    end
  end

  def test_parts_owned_by_another_user_are_refused
    needs_root
    store_capture
    %w[reports requests staging trash samples quarantine].each do |part|
      path = File.join(@store, part)
      File.chown(Torture::NOBODY, nil, path)
      %w[list gc].each do |command|
        result = diagctl(command)
        assert_equal 1, result.status, "#{part}: #{result}"
        assert_match(/#{part} is owned by uid #{Torture::NOBODY}/, result.err)
      end
      File.chown(0, nil, path)
    end
  end

  private

  def needs_root = Process.euid.zero? || skip("only root can take another user's place")

  # Installs the program in a place where the other user can run it.
  def program
    path = File.join(@root, "diagctl")
    FileUtils.install(E2E::BIN, path, mode: 0o755) unless File.exist?(path)
    path
  end

  def other(*argv) = E2E::Command.run(*OTHER, *argv, env: env, deadline: 20)

  # Returns every file that some command opens, in a store that contains them all.
  def our_files
    id = store_capture("gc_stat" => "{}")
    diagctl!("pin", id)
    waiting = diagctl!("request", "gc_stat", "--reason", "waits").out.strip
    staged = granted("gc_stat").tap { |dumper| dumper.put("gc_stat", "{}") && dumper.close }.capture
    diagctl!("request", "gc_stat", "--reason", "waits too")
    @id = id
    here = files(@store).select { |file| File.file?(File.join(@store, file)) }
    assert_operator here.size, :>, 12
    assert_includes here, "requests/#{waiting}.json"
    assert_includes here, "staging/#{staged}/.grant.json"
    here
  end

  def assert_harmless(file, kind, plant)
    copy_of(@store) do |store|
      victims = "#{store}.victims"
      Dir.mkdir(victims)
      victim = File.join(victims, "victim")
      File.write(victim, "precious")
      path = File.join(store, file)
      File.delete(path)
      plant.call(path, victim)
      what = "a #{kind} in the place of #{file}"
      commands = [%w[list], %w[status --explain], ["show", @id], ["fetch", @id, "gc_stat", "-o", "-"], %w[request gc_stat --reason x], ["pin", @id],
                  ["unpin", @id], %w[gc], %w[run -- true]]
      commands.each do |argv|
        result = on(store, *argv, deadline: 20)
        assert_includes [0, 1, 4, 5, 6, 10], result.status, "#{what}: #{result}"
        assert_match(/\S/, result.err, "#{what}: #{result}") if result.status == 1
        refute_includes result.out + result.err, "precious", what
        refute_match(/panicked/, result.err, what)
      end
      poll(store, what)
      assert_equal %w[victim], Dir.children(victims), what
      assert_equal "precious", File.read(victim), what
      FileUtils.rm_rf(victims)
    end
  end

  def poll(store, what)
    File.open(File.join(store, "lease.lock"), File::RDWR | File::CREAT | File::NOFOLLOW | File::NONBLOCK, 0o600) do |lease|
      result = on(store, "acquire", "--pid", Process.pid, "--lease-fd", lease.fileno, deadline: 20, lease.fileno => lease.fileno)
      assert_includes [0, 1, 10], result.status, "#{what}: #{result}"
    end
  rescue SystemCallError
    nil # the plugin cannot open it, and says so
  end
end
