# frozen_string_literal: true

require_relative "support/scenes"

# Each command that changes a store, killed before every single system call that it makes, and with every call failing in turn.
# strace does it: it counts the calls of a first, undisturbed run, and then disturbs the N-th call of each name.
class SyscallsTest < Torture::Case
  include Torture::Scenes

  ERRORS = %w[EIO ENOSPC EINTR EDQUOT].freeze

  # Calls that cannot fail so, or not in this process: without them nothing runs.
  NEVER_FAIL = %w[execve exit_group exit brk rt_sigreturn].freeze

  # What a disturbed `write` may do besides failing: take nothing, which the caller has to see.
  NOTHING_WRITTEN = "retval=0"

  Run = Struct.new(:scene, :result, :inject, keyword_init: true) do
    def to_s = "#{scene.name} with #{inject}: #{result}"
  end

  def test_killed_before_every_system_call
    disturbed(Torture::FULL ? 10_000 : 24) { |name, n| ["#{name}:signal=SIGKILL:when=#{n}"] }
  end

  def test_every_system_call_fails
    disturbed(Torture::FULL ? 10_000 : 12) do |name, n|
      next [] if NEVER_FAIL.include?(name)

      errors = ERRORS.map { |error| "#{name}:error=#{error}:when=#{n}" }
      errors << "#{name}:#{NOTHING_WRITTEN}:when=#{n}" if name == "write"
      Torture::FULL ? errors : errors.sample(1, random: Random.new(Torture::SEED + n))
    end
  end

  private

  def disturbed(size)
    runs = scenes.flat_map do |scene|
      points = Torture.sample(calls(scene), size)
      points.flat_map { |name, n| yield(name, n).map { |inject| [scene, inject] } }
    end
    Torture.each_parallel(runs) { |scene, inject| assert_survives(scene, inject) }
    warn "#{name}: #{runs.size} runs"
  end

  def assert_survives(scene, inject)
    copy_of(scene.store) do |store|
      run = Run.new(scene: scene, inject: inject, result: disturbed_run(scene, store, inject))
      assert_no_false_claim(run, store)
      kept = scene.kept.reject { |id, _| scene.victims.include?(id) && !File.exist?(File.join(store, "reports", id)) }
      assert_sound(store, kept: kept, what: run.to_s)
    end
  end

  def disturbed_run(scene, store, inject)
    traced(scene, store, "-o", "/dev/null", "-e", "inject=#{inject}") do |lease, result|
      finish_granted(store, lease, result) if scene.name == "acquire" && result.status.zero?
    end
  end

  # A grant that was answered is good for a capture, whatever went wrong on the way to it.
  def finish_granted(store, lease, result)
    answer = result.json
    lease_flag = ["--lease-fd", lease.fileno.to_s]
    ends = answer.fetch("reports").map do |report|
      on(store, "put", answer.fetch("capture"), report.fetch("name"), *lease_flag, stdin: "{}", lease.fileno => lease.fileno)
    end
    ends << on(store, "finalize", answer.fetch("capture"), *lease_flag, lease.fileno => lease.fileno)
    assert ends.all? { |one| [0, 5].include?(one.status) }, "after #{result}\n#{ends.join}"
  end

  # Success is only reported for what happened, and a failure says what went wrong.
  def assert_no_false_claim(run, store)
    status = run.result.status
    # Rust's own library gives up where a thread cannot be set up, or a directory cannot be closed.
    refute_match(%r{panicked at (?!/rustc/)}, run.result.err, run)
    return if status.negative? # killed

    assert_match(/\S/, run.result.err, "#{run}: failed without a word") unless [0, 5, 10].include?(status) || run.inject.start_with?("write:")
    reports = Dir.glob("*", base: File.join(store, "reports"))
    done = [0, 5].include?(status)
    case run.scene.name
    when "finalize" then assert_equal done, reports.include?(run.scene.id), run unless run.result.err.include?("stdout")
    when "abort" then refute_path_exists File.join(store, "staging", run.scene.id), run if done
    when "request", "create" then assert_path_exists File.join(store, "requests", "#{run.result.out.strip}.json"), run if done && !run.result.out.empty?
    when "rm" then refute_includes reports, run.scene.victims.first, run if done
    when "pin" then assert_path_exists File.join(store, "reports", run.scene.id, "pinned"), run if done
    end
  end
end
