# frozen_string_literal: true

module E2E
  # A test with a directory of its own, which is kept if the test fails. Every process that it starts is ended with it.
  class Case < Minitest::Test
    QUICK = {
      "guards" => 'min_free_disk = "1%"
memory_headroom = 0.1',
      "limits" => "budget_hour = 1000000
budget_day = 1000000",
      "retention" => 'keep_free = "1%"
max_use = "4GiB"'
    }.freeze

    # Heap dumps are stored as `dump_all` writes them, so that a test can say what and how much is stored.
    WITH_VALUES = { "reports.heap_dump": 'values = "all"' }.freeze

    attr_reader :root, :store

    def setup
      @root = Dir.mktmpdir("diagctl-e2e-")
      File.chmod(0o755, @root)
      @store = File.join(@root, "store")
      FileUtils.mkdir_p([File.join(@root, "tmp"), File.join(@root, "home")])
      configure
    end

    def teardown
      Processes.sweep
      if passed? || skipped?
        FileUtils.rm_rf(@root)
      else
        warn "\n#{self.class}##{name} failed; its directory is kept: #{@root}"
      end
    end

    # Writes a diagctl.toml with quick polls and generous limits, except for the sections that are given.
    def configure(rules = "", poll_interval: "200ms", head: "", **sections)
      sections = QUICK.merge(sections.transform_keys(&:to_s))
      tables = sections.map { |title, body| "[#{title}]\n#{body}\n" }
      File.write(config_path, "poll_interval = \"#{poll_interval}\"\n#{head}\n#{tables.join("\n")}\n#{rules}")
    end

    def config_path = File.join(@root, "diagctl.toml")

    def rule(name, trigger, reports, *more)
      <<~TOML
        [[rules]]
        name = "#{name}"
        reports = #{reports.inspect}
        trigger.#{trigger}
        #{more.join("\n")}
      TOML
    end

    # The environment of everything that a test starts. Nothing else is inherited.
    def env(**more)
      { "PATH" => ENV.fetch("PATH"), "HOME" => File.join(@root, "home"), "TMPDIR" => File.join(@root, "tmp"), "LANG" => "C.UTF-8",
        "DIAGCTL_BIN" => BIN, "DIAGCTL_CONFIG" => config_path, "DIAGCTL_DIR" => @store, "DIAGCTL_ENABLED" => "1" }
        .merge(more.transform_keys(&:to_s)).compact
    end

    def diagctl(*argv, env: self.env, **options) = Command.run(BIN, *argv, env: env, **options)

    # Runs a command that must succeed.
    def diagctl!(*argv, **options)
      result = diagctl(*argv, **options)
      assert result.ok?, result
      result
    end

    def holder(env: self.env) = LeaseHolder.new(@store, env)

    # Returns a new holder with a grant for an on-demand request of these reports.
    def granted(*reports)
      diagctl!("request", *reports, "--reason", "a test")
      holder.tap do |dumper|
        result = dumper.acquire
        assert dumper.granted?, result
      end
    end

    # Stores a finished capture with this data, and returns its id.
    def store_capture(reports = { "gc_stat" => "{}" })
      dumper = granted(*reports.keys)
      reports.each do |report, data|
        result = dumper.put(report, data)
        assert result.ok?, result
      end
      result = dumper.finalize
      assert result.ok?, result
      dumper.close
      dumper.capture
    end

    def puma(env: self.env, **options) = PumaServer.new(@root, env: env, **options).start

    def redis = @redis ||= Redis.new(@root).start

    def sidekiq(env: self.env, **options) = SidekiqServer.new(@root, redis, env: env, **options).start

    # Returns the content of a report as it was captured.
    def report(id, name) = diagctl!("fetch", "#{id}:#{name}", "-o", "-").out

    # Starts a script, and returns once it has polled.
    def start_script(**options)
      polled = -> { Dir.glob("*", base: File.join(@store, "samples")) }
      known = polled.()
      script = Script.new(@root, env, **options)
      wait_until("a first poll", tell: script.method(:log)) do
        raise "the script ended\n#{script.log}" unless Processes.alive?(script.pid)

        (polled.() - known).any?
      end
      script
    end

    def memory_cgroup(bytes) = Cgroup.with_memory(bytes) || skip("no memory cgroup can be made here: #{Cgroup.why}")

    def cpu_cgroup(percent) = Cgroup.with_cpu(percent) || skip("no CPU cgroup can be made here: #{Cgroup.why}")

    def wait_until(what, **options, &block) = E2E.wait_until(what, **options, &block)

    # Returns the captures of `list --json`, newest first.
    def captures
      return [] unless File.exist?(File.join(@store, "FORMAT"))

      diagctl!("list", "--json").json.fetch("captures")
    end

    def meta(id) = JSON.parse(File.read(File.join(@store, "reports", id, "meta.json")))

    def wait_for_captures(server, count = 1, deadline: 60)
      wait_until("#{count} captures listed", deadline: deadline, every: 0.1, tell: -> { "#{server.log}\n#{diagctl('status', '--explain')}" }) do
        found = captures
        found if found.size >= count
      end
    end

    # Stops the `put` of a heap dump as soon as it appears, so that the dump lasts as long as the block. Yields the pids of the
    # dumper and of its `put`.
    # `missed` is called whenever no dump is seen. On a busy machine one may be over before anybody looks.
    def during_a_dump(missed: nil)
      put = wait_until("a heap dump is under way", every: 0.002) do
        found = Processes.descendants.find { |process| process.binary?("put") && process.argv.include?("heap_dump") }
        missed&.call unless found
        found
      end
      Processes.signal(:STOP, put.pid)
      yield put.ppid, put.pid
    ensure
      Processes.signal(:CONT, put.pid) if put
    end

    # Asserts that a heap dump is complete and has at least this many strings. Every line is JSON, but parsing all of them takes
    # seconds, so by default only both ends are parsed.
    def assert_heap_dump(id, strings: 1000, parse_all: false)
      lines = diagctl!("fetch", "#{id}:heap_dump", "--as", "json", "-o", "-").out.lines
      assert(JSON.parse(lines.first)["type"] == "ROOT", lines.first)
      looked_at = parse_all ? lines : lines.first(1000) + lines.last(1000)
      looked_at.each { |line| assert JSON.parse(line).key?("type") }
      assert_operator lines.count { |line| line.include?('"type":"STRING"') }, :>=, strings
    end

    def assert_nothing_staged
      assert_empty Dir.children(File.join(@store, "staging")), "left in staging"
    end
  end
end
