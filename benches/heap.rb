# frozen_string_literal: true

# Reading a heap dump: `diagctl heap top` and `retained` against reap, heapy and `wc -l`. All read a dump of the
# same process: diagctl the compressed graph that `put` stores, and the JSON; the others the JSON. Interleaved; medians of CPU time (user
# and system) and the peak memory. reap (`scripts/reap release`, or REAP=PATH) and heapy (Debian's) are left out where they are
# missing. Writes benches/results/heap.md.
#
#   ruby benches/heap.rb            MB="100 1000" ROUNDS=3

require "json"
require "objspace"
require "tmpdir"
require_relative "support/bloated_app"
require_relative "support/machine"

class HeapBench
  MB = ENV.fetch("MB", "100 1000").split.map { |size| Integer(size) }
  ROUNDS = Integer(ENV.fetch("ROUNDS", "3"))
  BUILT = File.join(File.dirname(Bench::BINARY), "../tools/release/bin/reap")
  REAP = ENV.fetch("REAP") { File.executable?(BUILT) ? BUILT : "" }
  HEAPY = `which heapy`.strip
  # A larger dump takes heapy minutes.
  HEAPY_BYTES = 500_000_000
  RESULT = "heap.md"
  Run = Struct.new(:cpu, :peak_memory)

  def run
    @dir = Dir.mktmpdir("diagctl-bench-")
    rows = MB.flat_map { |megabytes| compare(megabytes) }
    report(rows)
  ensure
    FileUtils.rm_rf(@dir)
  end

  private

  def compare(megabytes)
    json, rss = dump(megabytes)
    graph = store(json)
    ways = ways(json, graph)
    runs = ways.transform_values { [] }
    ROUNDS.times { ways.each { |name, command| runs[name] << measure(command) } }
    base = runs["reap"] && median(runs["reap"].map(&:cpu))
    objects = File.foreach(json).count
    runs.map do |name, list|
      cpu = median(list.map(&:cpu))
      [rss, objects, name, cpu, base && base / cpu, list.map(&:peak_memory).max]
    end
  ensure
    [json, graph].compact.each { |file| FileUtils.rm_f(file) }
  end

  def ways(json, graph)
    ways = { "`wc -l`, JSON" => ["wc", "-l", json] }
    ways["reap"] = [REAP, json] unless REAP.empty?
    ways["heapy"] = [HEAPY, "read", json] unless HEAPY.empty? || File.size(json) > HEAPY_BYTES
    %w[top retained].each do |command|
      ways["`heap #{command}`, graph"] = [Bench::BINARY, "heap", command, graph]
      ways["`heap #{command}`, JSON"] = [Bench::BINARY, "heap", command, json]
    end
    ways
  end

  # A process of its own makes the dump, so that it is no part of the one that measures.
  def dump(megabytes)
    path = File.join(@dir, "heap.json")
    reader, writer = IO.pipe
    pid = fork do
      app = BloatedApp.new(megabytes)
      File.open(path, "w") { |file| ObjectSpace.dump_all(output: file) }
      writer.puts(File.read("/proc/self/status")[/VmRSS:\s*(\d+)/, 1].to_i * 1024)
      exit!(app ? 0 : 1)
    end
    writer.close
    rss = reader.read.to_i
    Process.wait(pid)
    abort "no heap dump was made" unless $?.success?
    [path, rss]
  end

  # The graph as `put` stores it.
  def store(json)
    env = { "DIAGCTL_DIR" => File.join(@dir, "store"), "DIAGCTL_CONFIG" => config, "DIAGCTL_ENABLED" => "1" }
    target = File.join(@dir, "heap.graph")
    ok = system(env, Bench::BINARY, "run", "--report", "heap_dump", "--", "cat", json, %i[out err] => File::NULL)
    ok &&= system(env, Bench::BINARY, "fetch", "latest:heap_dump", "--raw", "-o", target, %i[out err] => File::NULL)
    abort "the graph could not be stored" unless ok
    target
  ensure
    FileUtils.rm_rf(env["DIAGCTL_DIR"])
  end

  def config
    path = File.join(@dir, "diagctl.toml")
    File.write(path, "[guards]\nmin_free_disk = \"0%\"\nmemory_headroom = 0.01\n[retention]\nmax_use = \"20GiB\"\nkeep_free = \"0%\"\n")
    path
  end

  def measure(command)
    before = Process.times
    pid = Process.spawn(*command, %i[out err] => File::NULL)
    peak = 0
    until Process.wait(pid, Process::WNOHANG)
      peak = [peak, File.read("/proc/#{pid}/status")[/VmHWM:\s*(\d+)/, 1].to_i * 1024].max
      sleep 0.005
    end
    abort "#{command.join(" ")}: #{$?}" unless $?.success?
    after = Process.times
    Run.new(after.cutime + after.cstime - before.cutime - before.cstime, peak)
  end

  def median(list) = list.sort[list.size / 2]

  def absent
    { "reap" => REAP, "heapy" => HEAPY }.filter_map { |name, path| "#{name} was not available." if path.empty? }
  end

  def report(rows)
    lines = ["# Reading a heap dump", "", "`ruby benches/heap.rb`, interleaved, #{ROUNDS} rounds, medians. #{[*absent, Bench.machine].join(" ")}", "",
             "| process | objects | program | CPU | reap's CPU is … times that | peak memory |", "|---|---|---|---|---|---|"]
    rows.each do |rss, objects, name, cpu, ratio, memory|
      lines << format("| %.0f MB | %.2f M | %s | %.2f s | %s | %.0f MB |", rss / 1e6, objects / 1e6, name, cpu,
                      ratio && !name.include?("wc") ? format("%.0f", ratio) : "", memory / 1e6)
    end
    Bench.write(RESULT, lines)
  end
end

HeapBench.new.run
