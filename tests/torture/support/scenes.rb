# frozen_string_literal: true

require_relative "torture"

module Torture
  # Commands that change a store, each with a store prepared for it, and strace to disturb them.
  module Scenes
    SCENES = %w[create acquire put finalize abort gc request rm rm_pinned pin].freeze

    # A command and the store prepared for it. `lease` is set if the command needs the lease; `victims` may be gone afterwards;
    # `refused` is set if an undisturbed run is refused.
    Scene = Struct.new(:name, :store, :argv, :stdin, :lease, :held, :id, :kept, :victims, :refused, keyword_init: true) do
      def statuses = refused ? [1] : [0, 5]
    end

    # Returns every call of an undisturbed run: [name, its number among the calls of that name in its thread].
    def calls(scene)
      log = File.join(@root, "strace-#{scene.name}.log")
      copy_of(scene.store) do |store|
        result = traced(scene, store, "-o", log)
        assert_includes scene.statuses, result.status, result
      end
      seen = Hash.new(0)
      found = File.foreach(log).filter_map do |line|
        pid, name = line.match(/\A(\d+) +(\w+)\(/)&.captures
        [name, seen[[pid, name]] += 1] if name
      end
      found.uniq
    end

    # Runs a scene's command under strace, with these flags.
    def traced(scene, store, *flags, &block) = perform(scene, store, "strace", "-f", "-qq", *flags, &block)

    # Runs a scene's command, optionally behind another command, which passes the lease on like every inherited descriptor.
    # Yields the lease while it is still held.
    def perform(scene, store, *wrapper, **options)
      command = [*wrapper, E2E::BIN, "--dir", store, *scene.argv]
      return E2E::Command.run(*command, env: env, stdin: scene.stdin, **options) unless scene.lease

      File.open(File.join(store, "lease.lock"), File::RDWR | File::CREAT, 0o600) do |lease|
        lease.flock(File::LOCK_EX | File::LOCK_NB) or flunk "the lease of a fresh copy is taken" if scene.held
        inherited = { lease.fileno => lease.fileno }
        result = E2E::Command.run(*command, "--lease-fd", lease.fileno.to_s, env: env, stdin: scene.stdin, **options, **inherited)
        yield lease, result if block_given?
        result
      end
    end

    # Finishes the capture of a grant that was answered. This must succeed, whatever went wrong before the answer.
    def finish_granted(store, lease, result)
      answer = result.json
      lease_flag = ["--lease-fd", lease.fileno.to_s]
      ends = answer.fetch("reports").map do |report|
        on(store, "put", answer.fetch("capture"), report.fetch("name"), *lease_flag, stdin: E2E.dump(""), lease.fileno => lease.fileno)
      end
      ends << on(store, "finalize", answer.fetch("capture"), *lease_flag, lease.fileno => lease.fileno)
      assert ends.all? { |one| [0, 5].include?(one.status) }, "after #{result}\n#{ends.join}"
    end

    # Asserts that success is reported only for what happened, and that a failure comes with a message.
    def assert_no_false_claim(scene, store, result, what)
      status = result.status
      # Rust's own library panics if a thread cannot be set up or a directory cannot be closed.
      refute_match(%r{panicked at (?!/rustc/)}, result.err, what)
      return if status.negative? # killed

      assert_match(/\S/, result.err, "#{what}: failed without a word") unless [0, 5, 10].include?(status) || what.include?("write:")
      reports = Dir.glob("*", base: File.join(store, "reports"))
      done = [0, 5].include?(status)
      case scene.name
      when "finalize" then assert_equal done, reports.include?(scene.id), what unless result.err.include?("stdout")
      when "abort" then refute_path_exists File.join(store, "staging", scene.id), what if done
      when "request", "create" then assert_path_exists File.join(store, "requests", "#{result.out.strip}.json"), what if done && !result.out.empty?
      when "rm" then refute_includes reports, scene.victims.first, what if done
      when "pin" then assert_path_exists File.join(store, "reports", scene.id, "pinned"), what if done
      end
    end

    # Returns the captures that the scene's command was not meant to delete, or has not deleted.
    def left_of(scene, store)
      scene.kept.reject { |id, _| scene.victims.include?(id) && !File.exist?(File.join(store, "reports", id)) }
    end

    def scene(name) = send(:"scene_#{name}").tap { |scene| scene.name = name }

    # Those that succeed when nothing disturbs them.
    def scenes = SCENES.map { |name| scene(name) }.reject(&:refused)

    # Creates a store with two captures, which the block then prepares.
    def prepared
      @store = File.join(@root, "template-#{rand(1 << 32)}")
      configure(**E2E::Case::WITH_VALUES)
      ids = [store_capture("gc_stat" => "{}", "heap_dump" => E2E.dump(Random.new(1).bytes(5000))), store_capture("gc_stat" => '{"count":2}')]
      defaults = { store: @store, stdin: "", lease: false, held: false, id: ids.first, victims: [], kept: acknowledged(@store) }
      Scene.new(**defaults, **yield(ids))
    end

    def scene_create
      store = File.join(@root, "template-create")
      configure
      Dir.mkdir(store, 0o700)
      Scene.new(store: store, argv: %w[request gc_stat --reason first], stdin: "", kept: {}, victims: [])
    end

    def scene_acquire
      prepared do
        diagctl!("request", "gc_stat", "smaps_rollup", "--reason", "a test")
        leave_staged("gc_stat")
        { argv: ["acquire", "--pid", Process.pid.to_s, "--role", "puma"], lease: true }
      end
    end

    def scene_put
      prepared do
        dumper = granted("heap_dump")
        dumper.close
        { argv: ["put", dumper.capture, "heap_dump"], stdin: E2E.dump(Random.new(2).bytes(600_000)), lease: true, held: true }
      end
    end

    def scene_finalize
      prepared do
        id = leave_staged("gc_stat", "heap_dump", "threads")
        { argv: ["finalize", id, "--failed", "threads=no", "--set", "team=web"], lease: true, held: true, id: id }
      end
    end

    def scene_abort
      prepared do
        id = leave_staged("gc_stat", "heap_dump")
        { argv: ["abort", id, "--reason", "a test"], lease: true, held: true, id: id }
      end
    end

    def scene_gc
      prepared do |ids|
        FileUtils.mkdir_p(File.join(@store, "trash", "0123abcd"))
        File.write(File.join(@store, "trash", "0123abcd", "left"), "over")
        diagctl!("pin", ids.first)
        store_capture("gc_stat" => '{"count":3}')
        configure(retention: "keep_free = \"1%\"\nmax_captures = 1\nkeep_last = 0")
        { argv: ["--config", config_path, "gc"], victims: ids.drop(1) }
      end.tap { |scene| scene.argv[1] = keep_configuration("gc") }
    end

    def scene_request = prepared { { argv: %w[request heap_dump --reason why] } }

    def scene_rm = prepared { |ids| { argv: ["rm", ids.first], victims: ids.first(1) } }

    # Is refused. No failing call may make it look like any other.
    def scene_rm_pinned
      prepared do |ids|
        diagctl!("pin", ids.first)
        { argv: ["rm", ids.first], refused: true }
      end
    end

    def scene_pin = prepared { |ids| { argv: ["pin", ids.first] } }

    # Saves the configuration for one scene only. The commands that check the store afterwards use the usual one.
    def keep_configuration(name)
      File.join(@root, "#{name}.toml").tap { |path| File.rename(config_path, path) }.tap { configure }
    end

    # Leaves a capture in staging whose dumper put its reports and died. Returns its id.
    def leave_staged(*reports)
      dumper = granted(*reports)
      reports.each { |report| assert dumper.put(report, E2E.dump(Random.new(3).bytes(3000))).ok? unless report == "threads" }
      dumper.close
      dumper.capture
    end
  end
end
