# frozen_string_literal: true

# Lists 100,000 captures of 1,000 machines and 30 days from their manifests: `diagctl list --remote`, as a person runs it, before and after
# `diagctl gc --remote` has merged the manifests of each day. The remote is a directory, and with S5CMD, which names the program s5cmd, also a
# server that speaks S3, to which s5cmd uploads them, and of which a relay counts the requests. (s3s-fs lists no ETag, so there the merged ones are of no use.) The
# manifests are written by the benchmark itself. Medians of elapsed and of CPU time (diagctl
# and diagctl-remote). Writes benches/results/list_remote.md. Needs diagctl-remote beside diagctl.
#
#   ruby benches/list_remote.rb [CAPTURES]     ROUNDS=3 NODES=1000 DAYS=30

require "fileutils"
require "json"
require "tmpdir"
require_relative "support/s3_server"

class ListRemoteBench
  CAPTURES = Integer(ARGV.fetch(0, 100_000))
  NODES = Integer(ENV.fetch("NODES", "1000"))
  DAYS = Integer(ENV.fetch("DAYS", "30"))
  ROUNDS = Integer(ENV.fetch("ROUNDS", "3"))
  S5CMD = ENV.fetch("S5CMD", "s5cmd")
  REPORTS = %w[gc_stat heap_summary jemalloc_stats smaps object_counts process threads].freeze

  def run
    rows = Dir.mktmpdir("diagctl-bench-") do |dir|
      @dir = dir
      @files = File.join(dir, "files")
      make(@files)
      directory = measure("a directory", "url = \"file://#{@files}\"")
      FileUtils.rm_rf(File.join(@files, "merged"))
      directory + (ENV.key?("S5CMD") ? on_server : [])
    end
    Bench.write("list_remote.md", [
      "# Listing the captures of a fleet", "",
      "`ruby benches/list_remote.rb`: `diagctl list --remote` with #{CAPTURES} captures of #{NODES} machines and #{DAYS} days; #{ROUNDS} rounds, medians. CPU is that of diagctl and " \
      "diagctl-remote; the server shares the two CPUs. #{Bench.machine}", "",
      "| remote | manifests | captures | elapsed | CPU | requests |", "|---|---|---|---|---|---|", *rows.map { |row| "| #{row.join(" | ")} |" }
    ])
  end

  # Uploaded, because objects that are put where the server keeps its files have no ETag, and merged manifests rely on it.
  def on_server
    Bench::S3.run(@dir) do |server, name|
      relay = Bench::S3::Relay.new(server.port)
      @keys = { "AWS_ACCESS_KEY_ID" => E2E::S3Server::KEY, "AWS_SECRET_ACCESS_KEY" => E2E::S3Server::SECRET }
      upload = [S5CMD, "--endpoint-url", server.endpoint, "--log", "error", "cp", "#{@files}/", "s3://bucket/fleet/"]
      system(@keys.merge("AWS_REGION" => "us-east-1"), *upload, out: File::NULL) || abort("s5cmd failed")
      section = ->(endpoint) { "url = \"s3://bucket/fleet\"\nendpoint = \"#{endpoint}\"" }
      measure("S3 (#{name})", section.(server.endpoint), relay, section.(relay.endpoint))
    ensure
      relay&.stop
    end
  end

  private

  def make(files)
    today = Time.now.utc
    DAYS.times do |day|
      date = (today - (day * 86_400)).strftime("%Y-%m-%d")
      FileUtils.mkdir_p(File.join(files, "manifests", date))
      # `gc` forgets a day without captures.
      kept = File.join(files, "captures", date, "web-0", line(date, 0, 0)[:id])
      FileUtils.mkdir_p(kept)
      File.write(File.join(kept, "meta.json"), "{}")
      NODES.times do |node|
        lines = Array.new(captures_of(day, node)) { |number| "#{JSON.generate(line(date, node, number))}\n" }
        File.write(File.join(files, "manifests", date, format("web-%d~%08x.jsonl", node, node)), lines.join) if lines.any?
      end
    end
  end

  # As even as whole numbers can be.
  def captures_of(day, node)
    slot = (day * NODES) + node
    (CAPTURES * (slot + 1) / (NODES * DAYS)) - (CAPTURES * slot / (NODES * DAYS))
  end

  def line(date, node, number)
    time = format("%sT%02d:%02d:%02d.000Z", date, number % 24, node / 60 % 60, node % 60)
    id = format("%sZ-%08x", time.delete("-:.").delete_suffix("Z"), (node << 8) | number)
    { id: id, sequence: number, created: time, store_ms: 1_795_891_236_688, host: "web-#{node}.acme.example",
      pid: 4711, role: "puma", worker: "worker-#{number % 4}", rule: "bloat", reason: "rss is 1.3 GiB, above 1.2 GiB for 5m",
      reports: REPORTS.map { |name| { name: name, stored_bytes: 12_345, raw_bytes: 98_765 } }, disk_bytes: 131_072, pinned: false, shipped: true }
  end

  def measure(kind, section, relay = nil, relayed = nil)
    configure(section)
    # The relay would be the slowest part of 30,000 requests.
    rows = [row(kind, "one for each machine and day", relay ? "#{(NODES * DAYS) + (NODES * DAYS / 1000) + 1}, calculated" : "")]
    diagctl!("gc", "--remote", "--max-age", "3650d")
    [["merged by `gc --remote`, but those of today"], ["the same, `--since 7d`", "--since", "7d"]].each do |what, *options|
      rows << row(kind, what, relay ? count(relay, section, relayed, options) : "", *options)
    end
    rows
  end

  def count(relay, section, relayed, options)
    configure(relayed)
    relay.reset
    list(*options)
    relay.requests
  ensure
    configure(section)
  end

  def configure(section)
    config = File.join(@dir, "diagctl.toml")
    @env = { "PATH" => "#{File.dirname(Bench::BINARY)}:#{ENV.fetch("PATH")}", "HOME" => @dir, "DIAGCTL_CONFIG" => config, "DIAGCTL_DIR" => File.join(@dir, "store"),
             "AWS_REGION" => "us-east-1" }.merge(@keys || {})
    File.write(config, "[remote]\n#{section}\n")
  end

  def row(kind, manifests, requests, *options)
    list(*options)
    runs = Array.new(ROUNDS) { list(*options) }
    # Otherwise lines were refused, and not reading them is fast.
    options.any? || runs.last.first == CAPTURES || abort("#{runs.last.first} of #{CAPTURES} captures listed")
    captures, wall, cpu = runs.transpose.map { |values| values.sort[values.size / 2] }
    [kind, manifests, captures, format("%.2f s", wall), format("%.2f s", cpu), requests]
  end

  # Returns the number of captures, elapsed and CPU time.
  def list(*options)
    before = Process.times
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    lines = IO.popen(@env, [Bench::BINARY, "list", "--remote", "-q", *options], unsetenv_others: true, &:readlines).size
    abort "list failed" unless $?.success?
    wall = Process.clock_gettime(Process::CLOCK_MONOTONIC) - start
    after = Process.times
    [lines, wall, after.cutime + after.cstime - before.cutime - before.cstime]
  end

  def diagctl!(*argv) = system(@env, Bench::BINARY, *argv, unsetenv_others: true, out: File::NULL) || abort("#{argv.join(" ")} failed")
end

ListRemoteBench.new.run if $PROGRAM_NAME == __FILE__
