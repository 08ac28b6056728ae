# frozen_string_literal: true

# The cost of storing a heap dump: `diagctl put`, as a graph and with values, against `gzip --fast`. All read the same real
# ObjectSpace dump from a pipe and write a file, interleaved. Reports the median CPU time (user and system), the stored bytes, the peak memory of `put`, and
# the most disk space that the store used during the run. Incompressible data is measured too. Writes benches/results/put.md.
#
#   ruby benches/put.rb             MB=450 ROUNDS=7

require "json"
require "objspace"
require "tmpdir"
require_relative "support/machine"
require_relative "../tests/e2e/support/lease_holder"
require_relative "../tests/e2e/support/command"

module E2E
  BIN = Bench::BINARY
end

class PutBench
  MB = Integer(ENV.fetch("MB", "450"))
  ROUNDS = Integer(ENV.fetch("ROUNDS", "7"))
  STEP = 4 << 20
  RESULT = "put.md"
  Record = Struct.new(:id, :name, :tags, :settings)
  Run = Struct.new(:cpu, :stored, :peak_memory, :extra_disk)

  def run
    @dir = Dir.mktmpdir("diagctl-bench-")
    inputs = { "heap dump" => heap_dump, "random bytes" => random }
    rows = inputs.flat_map { |what, path| compare(what, path) }
    report(rows)
  ensure
    FileUtils.rm_rf(@dir)
  end

  private

  # A heap like that of a web application: records of strings, arrays and hashes. A separate process makes it, so that it is not
  # part of the process that measures.
  def heap_dump
    path = File.join(@dir, "heap.json")
    pid = fork do
      random = Random.new(1)
      kept = Array.new(MB * 380) do |i| # a record takes about 2.7 kB in the dump
        Record.new(i, "user #{random.rand(1 << 40).to_s(36)}", Array.new(3) { "tag-#{random.rand(1000)}" },
                   { "email" => "#{random.rand(1 << 50).to_s(36)}@example.org", "created" => "2026-11-#{random.rand(30)}",
                     "body" => random.bytes(20).unpack1("H*") * random.rand(4) })
      end
      File.open(path, "w") { |file| ObjectSpace.dump_all(output: file) }
      exit!(kept.empty? ? 1 : 0)
    end
    Process.wait(pid)
    abort "no heap dump was made" unless $?.success?
    path
  end

  def random
    path = File.join(@dir, "random")
    File.open(path, "wb") { |file| (MB / 4).times { file.write(Random.bytes(1 << 20)) } }
    path
  end

  def compare(what, path)
    ways = { "`gzip --fast`" => -> { gzip(path) } }
    ways["put, as a graph"] = -> { put(path, "gzip", "none") } if what == "heap dump"
    %w[gzip zstd].each do |compression|
      ways["put, #{compression}, values = \"all\""] = -> { put(path, compression, "all") }
    end
    runs = ways.transform_values { [] }
    ROUNDS.times { ways.each { |name, way| runs[name] << way.call } }
    base = median(runs.values.first.map(&:cpu))
    runs.map do |name, list|
      cpu = median(list.map(&:cpu))
      [what, name, cpu, cpu / base, File.size(path), list.last.stored, list.map(&:peak_memory).max, list.map(&:extra_disk).max]
    end
  end

  def gzip(path)
    out = File.join(@dir, "out.gz")
    run = feed(path, -> { File.size(out) }) { |pipe| Process.spawn("gzip", "--fast", "-c", in: pipe, out: out) }
    run.stored = File.size(out)
    run
  end

  def put(path, compression, values)
    store = File.join(@dir, "store")
    config = File.join(@dir, "diagctl.toml")
    File.write(config, "[guards]\nmin_free_disk = \"0%\"\nmemory_headroom = 0.01\n[retention]\nmax_use = \"20GiB\"\nkeep_free = \"0%\"\ncompression = \"#{compression}\"\n[reports.heap_dump]\nvalues = \"#{values}\"\n")
    env = { "PATH" => ENV.fetch("PATH"), "DIAGCTL_CONFIG" => config, "DIAGCTL_DIR" => store, "DIAGCTL_ENABLED" => "1" }
    system(env, E2E::BIN, "request", "heap_dump", "--reason", "bench", unsetenv_others: true, %i[out err] => File::NULL) || abort("no request")
    dumper = E2E::LeaseHolder.new(store, env)
    said = dumper.acquire
    abort "not granted: #{said}" unless dumper.granted?
    run = feed(path, -> { occupied(store) }) do |pipe|
      Process.spawn(env, E2E::BIN, "put", dumper.capture, "heap_dump", "--lease-fd", "3", in: pipe, 3 => dumper.lease, unsetenv_others: true)
    end
    run.stored = Dir.glob(File.join(dumper.staging, "heap_dump.*")).sum { |file| File.size(file) }
    run.extra_disk = [run.extra_disk - run.stored, 0].max
    run
  ensure
    dumper&.close
    FileUtils.rm_rf(store) if store
  end

  # Feeds the pipe itself, so that the program under test is the only child that is waited for.
  def feed(path, disk)
    reader, writer = IO.pipe(binmode: true)
    before = Process.times
    pid = yield reader
    reader.close
    run = Run.new(0, 0, 0, 0)
    File.open(path, "rb") do |file|
      while IO.copy_stream(file, writer, STEP).positive?
        run.extra_disk = [run.extra_disk, disk.call].max
      end
    end
    run.peak_memory = File.read("/proc/#{pid}/status")[/VmHWM:\s*(\d+)/, 1].to_i * 1024
    writer.close
    Process.wait(pid)
    abort "it failed: #{$?}" unless $?.success?
    run.extra_disk = [run.extra_disk, disk.call].max
    after = Process.times
    run.cpu = after.cutime + after.cstime - before.cutime - before.cstime
    run
  end

  def occupied(store)
    Dir.glob("#{store}/**/*", File::FNM_DOTMATCH).sum do |path|
      File.lstat(path).blocks * 512
    rescue Errno::ENOENT
      0
    end
  end

  def median(list) = list.sort[list.size / 2]

  def report(rows)
    lines = ["# Storing a heap dump", "", "`ruby benches/put.rb`, interleaved, #{ROUNDS} rounds, medians. #{Bench.machine}", "",
             "| input | program | CPU | of gzip | raw | stored | peak memory | disk beyond what is stored |",
             "|---|---|---|---|---|---|---|---|"]
    rows.each do |what, name, cpu, ratio, raw, stored, memory, disk|
      lines << format("| %s | %s | %.2f s | %.2f | %.1f MB | %.2f MB | %.1f MB | %s |", what, name, cpu, ratio, raw / 1e6, stored / 1e6,
                      memory / 1e6, name.include?("gzip") ? "" : format("%.2f MB", disk / 1e6))
    end
    Bench.write(RESULT, lines)
  end
end

PutBench.new.run
