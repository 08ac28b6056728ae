# frozen_string_literal: true

require_relative "support/scenes"

# Kills each command that changes a store before every system call that it makes, and lets every call fail in turn. strace
# counts the calls of an undisturbed run, and then disturbs the N-th call of each name.
class SyscallsTest < Torture::Case
  include Torture::Scenes

  ERRORS = %w[EIO ENOSPC EINTR EDQUOT].freeze

  # Calls that cannot fail in this way, or not in this process, because nothing runs without them. (Reading a clock that the
  # kernel has cannot fail, and no library checks the result.)
  NEVER_FAIL = %w[execve exit_group exit brk rt_sigreturn getpid gettid getuid geteuid getgid getegid clock_gettime].freeze

  # Besides failing, a disturbed `write` may write nothing, which the caller must notice.
  NOTHING_WRITTEN = "retval=0"

  SCENES.each do |scene|
    define_method(:"test_#{scene}_killed_before_every_system_call") do
      disturb(scene, 24) { |name, n| ["#{name}:signal=SIGKILL:when=#{n}"] }
    end

    define_method(:"test_#{scene}_with_every_system_call_failing") do
      disturb(scene, 12) { |name, n| NEVER_FAIL.include?(name) ? [] : injections(name, n) }
    end
  end

  # Workers and users may find at the same moment that there is no store yet. Here one command has not found FORMAT, and
  # examines the directory after another command has created the store.
  def test_a_store_that_another_command_makes_at_the_same_time_is_not_foreign
    Dir.mkdir(@store, 0o700)
    log = File.join(@root, "strace.log")
    slow = Thread.new do
      E2E::Command.run("strace", "-qq", "-o", log, "-e", "trace=/^openat,getdents64", "-e", "inject=getdents64:delay_enter=2000000:when=1",
                       E2E::BIN, "request", "gc_stat", "--reason", "slow", env: env)
    end
    wait_until("the slow one has missed FORMAT") { File.exist?(log) && File.read(log).match?(/FORMAT.*ENOENT/) }
    diagctl!("request", "gc_stat", "--reason", "fast")
    assert_predicate slow.value, :ok?, slow.value
  end

  private

  def injections(name, n)
    errors = ERRORS.map { |error| "#{name}:error=#{error}:when=#{n}" }
    errors << "#{name}:#{NOTHING_WRITTEN}:when=#{n}" if name == "write"
    Torture::FULL ? errors : errors.sample(1, random: Random.new(Torture::SEED + n))
  end

  def disturb(scene_name, size)
    scene = scene(scene_name)
    runs = Torture.sample(calls(scene), size).flat_map { |name, n| yield(name, n) }
    Torture.each_parallel(runs) { |inject| assert_survives(scene, inject) }
    warn "#{name}: #{runs.size} runs" if Torture::FULL
  end

  def assert_survives(scene, inject)
    copy_of(scene.store) do |store|
      result = traced(scene, store, "-o", "/dev/null", "-e", "inject=#{inject}") do |lease, answered|
        finish_granted(store, lease, answered) if scene.name == "acquire" && answered.status.zero?
      end
      what = "#{scene.name} with #{inject}: #{result}"
      assert_no_false_claim(scene, store, result, what)
      assert_sound(store, kept: left_of(scene, store), what: what)
    end
  end
end
