# frozen_string_literal: true

# Producing a heap dump: by the walker, by `ObjectSpace.dump_all` as a graph, and by `dump_all` with all values, which is what a heap
# dump was before the graph. The same worker of a real Puma dumps in every way, interleaved, while it serves at a fixed rate.
#
#   ruby benches/heap_dump.rb            an application that has grown, whose heap is a third small objects. Writes heap_dump.md
#   ruby benches/heap_dump.rb redmine    Debian's Redmine, only in an image of the matrix: see make bench-heap. Writes heap_dump_redmine.md
#   ruby benches/heap_dump.rb ruby34     the first one, on Ruby 3.4 in an image of the matrix. Writes heap_dump_ruby34.md
#
#   SIZES=0.1,1,4 (GB of the worker; those for which there is no memory are left out) ROUNDS=5 (1 above 2 GB)

require_relative "../tests/e2e/support/wait"
require_relative "support/load"
require_relative "support/puma_server"

class HeapDumpBench
  SERVER = { "redmine" => RedmineServer }.fetch(ARGV[0], BloatedServer)
  RESULT = ["heap_dump", *ARGV[0]].join("_") << ".md"
  SIZES = ENV.fetch("SIZES", "0.1,1,4").split(",").map { |size| Float(size) }
  ROUNDS = Integer(ENV.fetch("ROUNDS", "5"))
  # A worker takes more while it grows, and its dumper copies some of that.
  MEMORY_PER_SIZE = 2.5
  LARGE = 2_000_000_000
  # More than a dumper and its programs take.
  WARM = 400 << 20
  LATE = 100 # ms
  WAYS = { "walker" => "", "`dump_all`, as a graph" => 'producer = "dump_all"', "`dump_all`, with all values" => 'values = "all"' }.freeze
  BASE = WAYS.keys.last

  def run
    rows = []
    SIZES.each do |size|
      rows.concat(memory < size * MEMORY_PER_SIZE ? missing(size) : SERVER.open(size, 1, SERVER::USERS.values.first) { |server| measure(server) })
      report(rows)
    end
  end

  private

  def memory = File.read("/proc/meminfo")[/MemAvailable:\s*(\d+)/, 1].to_i * 1024 / 1e9

  def missing(size) = [["#{size} GB", "not measured: it needs #{size * MEMORY_PER_SIZE} GB of free memory", *[""] * 8]]

  def measure(server)
    rss = server.ask("rss").fetch("rss")
    runs = WAYS.transform_values { [] }
    rounds = rss > LARGE ? 1 : ROUNDS
    rounds.times { |round| WAYS.keys.rotate(round).each { |way| runs[way] << one(server, way) } }
    base = median(runs[BASE], :cpu)
    runs.map { |way, list| row(rss, way, list, base) }
  end

  # `copied` is what worker, dumper and walk no longer share, `peak` the memory of `diagctl put`.
  Run = Struct.new(:cpu, :raw, :stored, :copied, :peak, :slowest, :late, :requests)

  def one(server, way)
    server.configure("heap_dump", WAYS.fetch(way))
    Bench.warm(WARM)
    Bench.touch(server.ask("rss").fetch("pid"))
    load = Bench::Load.new(server, SERVER::RATE)
    sleep 0.5 # for the generator to start
    from = now
    peak = watching_put { @meta = server.dump(:diagctl, 0) }
    upto = now
    requests, = load.finish
    during = requests.filter_map { |due, outcome| outcome if due.between?(from, upto) && outcome.is_a?(Float) }
    dump = @meta.fetch("reports").find { |report| report["name"] == "heap_dump" }
    abort "#{way}: #{dump}" if dump["error"] || (way == "walker" && dump["producer"] != "walker")
    Run.new(@meta.dig("cost", "dumper_cpu_ms"), dump.fetch("raw_bytes"), dump.fetch("stored_bytes"), @meta.dig("cost", "copied_bytes"), peak,
            during.max, during.count { |ms| ms > LATE }, during.size)
  end

  # Returns the peak memory of the `diagctl put` that reads the heap dump.
  def watching_put
    peak = 0
    over = false
    watch = Thread.new do
      until over
        puts = Dir.glob("/proc/[0-9]*/cmdline").select { |path| (%w[put heap_dump] - File.read(path).split("\0")).empty? rescue nil }
        puts.each { |path| peak = [peak, File.read(path.sub("cmdline", "status"))[/VmHWM:\s*(\d+)/, 1].to_i * 1024].max rescue nil }
        sleep 0.1
      end
    end
    yield
    over = true
    watch.join
    peak
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  def median(runs, name) = runs.map(&name).sort[runs.size / 2]

  def row(rss, way, runs, base)
    cpu = median(runs, :cpu)
    share = runs.sum(&:late).fdiv(runs.sum(&:requests))
    [format("%.0f MB", rss / 1e6), way, format("%.2f s", cpu / 1e3), format("%.2f", cpu / base), format("%.1f MB", median(runs, :raw) / 1e6),
     format("%.2f MB", median(runs, :stored) / 1e6), format("%.0f MB", median(runs, :copied) / 1e6), format("%.0f MB", runs.map(&:peak).max / 1e6),
     format("%.0f ms", runs.filter_map(&:slowest).max), format("%.1f %%", share * 100)]
  end

  def report(rows)
    lines = ["# Producing a heap dump, Ruby #{RUBY_VERSION[/\d+\.\d+/]}", "", "`#{["ruby benches/heap_dump.rb", *ARGV].join(" ")}`: one worker of a real Puma with #{SERVER::TITLE},",
             "under #{SERVER::RATE} requests a second, in each way in turn; #{ROUNDS} rounds, 1 above 2 GB; medians. CPU time is that of the dumper with all that it",
             "starts: proof, walk or `dump_all`, compression. #{Bench.machine}", ""]
    heads = ["worker", "producer", "dumper CPU", "of that with all values", "raw", "stored", "pages copied", "memory of `put`", "slowest request", "over #{LATE} ms"]
    [heads, heads.map { "---" }, *rows].each { |cells| lines << "| #{cells.join(" | ")} |" }
    Bench.write(RESULT, lines)
  end
end

HeapDumpBench.new.run
