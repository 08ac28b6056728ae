# frozen_string_literal: true

# The cost of a large store: each command, a whole capture and a poll with 100 and with 100,000 captures. The poll is also measured
# with 100 and 100,000 requests. Reports CPU time (user and system, medians), peak memory and bytes read (rchar of /proc/PID/io).
# The captures are written by the benchmark itself. Writes benches/results/store.md.
#
#   ruby benches/store.rb [CAPTURES]     ROUNDS=11

require "json"
require "open3"
require "tmpdir"
require_relative "support/machine"
require_relative "support/watched"

class StoreBench
  SIZES = [100, Integer(ARGV.fetch(0, 100_000))].freeze
  ROUNDS = Integer(ENV.fetch("ROUNDS", "11"))
  RESULT = "store.md"
  # Measured fewer times, because they take long in a large store.
  ONCE = ["list", "list --json", "list --json --role other", "gc, index and catalog missing", "gc, catalog missing"].freeze

  def run
    results = SIZES.map { |captures| Dir.mktmpdir("diagctl-bench-") { |dir| measure(dir, captures) } }
    report(*results)
  end

  private

  def measure(dir, captures)
    @dir = dir
    @store = File.join(dir, "store")
    @env = { "PATH" => ENV.fetch("PATH"), "DIAGCTL_CONFIG" => File.join(dir, "diagctl.toml"), "DIAGCTL_DIR" => @store, "DIAGCTL_ENABLED" => "1" }
    configure
    capture
    make_captures(captures)
    2.times { capture } # The first one rewrites the index and the catalog.
    result = commands(captures)
    result["a capture: acquire"], result["a capture: put"], result["a capture: finalize"], result["a whole capture"] = captures_of(ROUNDS)
    configure("max_captures = #{captures}")
    capture
    *, result["a whole capture, and the oldest is deleted"] = captures_of(ROUNDS)
    configure
    result.merge(polls(captures))
  end

  def commands(captures)
    list = {
      "list" => %w[list], "list --json" => %w[list --json], "list --json --role other" => %w[list --json --role other], "list -n 50" => %w[list -n 50],
      "show latest" => %w[show latest], "status" => %w[status], "pin latest" => %w[pin latest], "request" => %w[request gc_stat --reason bench],
      "run" => %w[run --report notes -- true]
    }
    result = list.to_h { |name, argv| [name, repeated(ONCE.include?(name) && captures > 1000 ? 3 : ROUNDS) { watch(argv) }] }
    diagctl("gc")
    FileUtils.rm_f(Dir.glob("#{@store}/requests/*.json"))
    result["gc, catalog missing"] = repeated(3) { without("catalog.bin") { watch(%w[gc]) } }
    result["gc, index and catalog missing"] = repeated(1) { without("catalog.bin", "index.jsonl") { watch(%w[gc]) } }
    result
  end

  def without(*names)
    names.each { |name| FileUtils.rm_f(File.join(@store, name)) }
    yield
  end

  def repeated(rounds, &block) = Bench::Watched.median(Array.new(rounds, &block))

  # Takes captures of one small report. Returns the median cost of acquire, put and finalize, and of their sum.
  def captures_of(rounds)
    runs = Array.new(rounds) { capture }
    parts = runs.transpose.map { |part| Bench::Watched.median(part) }
    [*parts, Bench::Watched.median(runs.map { |run| Bench::Watched.sum(run) })]
  end

  def capture
    diagctl("request", "gc_stat", "--reason", "bench")
    File.open(File.join(@store, "lease.lock"), File::RDWR | File::CREAT, 0o600) do |lease|
      out = +""
      acquired = watch(["acquire", "--lease-fd", lease.fileno, "--pid", Process.pid, "--role", "puma"], lease: lease, out: out)
      answer = JSON.parse(out)
      abort "not granted: #{out}" unless answer["verdict"] == "granted"
      id = answer.fetch("capture")
      put = watch(["put", id, "gc_stat", "--lease-fd", lease.fileno], lease: lease, data: '{"count":1}')
      [acquired, put, watch(["finalize", id, "--lease-fd", lease.fileno], lease: lease)]
    end
  end

  # Polls without requests, and then with requests for a process that never polls.
  def polls(count)
    idle = repeated(ROUNDS) { poll }
    now = (Time.now.to_f * 1000).to_i
    count.times do |i|
      id = format("20260101T%09dZ-%08x", i, i)
      request = { schema: 1, id: id, reports: ["gc_stat"], role: "nobody", reason: "bench", by: "bench", created: now, expires: now + 36_000_000 }
      File.write(File.join(@store, "requests", "#{id}.json"), JSON.generate(request), perm: 0o600)
    end
    sleep 1.1 # Before that, the directory still counts as changing.
    2.times { poll }
    { "a poll without requests" => idle, "a poll with #{SIZES.join(' or ')} requests for others" => repeated(ROUNDS) { poll } }
  end

  def poll
    File.open(File.join(@store, "lease.lock"), File::RDWR) do |lease|
      watch(["acquire", "--lease-fd", lease.fileno, "--pid", Process.pid, "--role", "puma"], lease: lease)
    end
  end

  def configure(retention = "")
    rule = "[[rules]]\nname = \"routine\"\nreports = [\"gc_stat\"]\ntrigger.timer = { every = \"24h\", initial_delay = \"24h\" }\n"
    guards = "[guards]\nmin_free_disk = \"0%\"\nmemory_headroom = 0.01\n[retention]\nkeep_free = \"0%\"\nmax_use = \"20GiB\"\n#{retention}\n"
    File.write(@env.fetch("DIAGCTL_CONFIG"), guards + rule)
  end

  def make_captures(count)
    state = JSON.parse(File.read(File.join(@store, "state.json"))).except("check")
    File.write(File.join(@store, "state.json"), JSON.generate(state.merge("generation" => count + 1)))
    now = (Time.now.to_f * 1000).to_i
    File.open(File.join(@store, "index.jsonl"), "a", 0o600) do |index|
      count.times do |i|
        id = format("20260101T%09dZ-%08x", i, i)
        common = { id: id, sequence: i + 2, created: "2026-01-01T00:00:00.000Z", store_ms: now - count + i, host: "bench", pid: 4711,
                   role: "puma", worker: "worker-#{i % 8}", rule: "routine" }
        reports = %w[gc_stat smaps threads].map { |name| { name: name, file: "#{name}.txt.gz", stored_bytes: 1000, raw_bytes: 9000 } }
        dir = File.join(@store, "reports", id)
        Dir.mkdir(dir, 0o700)
        File.write(File.join(dir, "meta.json"), JSON.generate(schema: 1, **common, trigger: { reason: "due every 2h" }, reports: reports), perm: 0o600)
        index.puts JSON.generate(**common, reason: "due every 2h", reports: reports.map { |report| report.except(:file) }, disk_bytes: 8192)
      end
    end
  end

  def diagctl(*argv)
    out, status = Open3.capture2e(@env, Bench::BINARY, *argv, unsetenv_others: true)
    abort "#{argv.join(' ')}: #{out}" unless status.success?
  end

  def watch(argv, **options)
    cost = Bench::Watched.run(@env, [Bench::BINARY, *argv.map(&:to_s)], **options)
    abort "#{argv.join(' ')} ended with #{cost.status}" unless [0, 4, 10].include?(cost.status)
    cost
  end

  def report(small, large)
    lines = ["# A store that has grown", "", "`ruby benches/store.rb #{SIZES.last}`: medians of #{ROUNDS}, fewer of what takes seconds. #{Bench.machine}", "",
             "| | captures | CPU | from start to end | peak memory | read |", "|---|---|---|---|---|---|"]
    small.each_key do |name|
      SIZES.zip([small, large]) do |captures, result|
        cost = result.fetch(name)
        memory = cost.memory ? format("%.1f MB", cost.memory / 1e6) : ""
        read = cost.read ? format("%.1f kB", cost.read / 1e3) : ""
        lines << format("| %s | %d | %.1f ms | %.1f ms | %s | %s |", name, captures, cost.cpu * 1e3, cost.wall * 1e3, memory, read)
      end
    end
    lines << "" << "CPU time, large by small:" << ""
    small.each_key { |name| lines << format("- %s: %.1f", name, large[name].cpu / small[name].cpu) }
    Bench.write(RESULT, lines)
  end
end

StoreBench.new.run
