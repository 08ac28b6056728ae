# frozen_string_literal: true

# Lists 100,000 captures of 1,000 machines and 30 days from their manifests: `diagctl list --remote`, as a person runs it, before and after
# `diagctl gc --remote` has merged the manifests of each day. The remote is a directory, or a server that speaks S3 (moto) if
# DIAGCTL_TEST_MOTO names its program; a proxy in between counts the requests and adds the latency of a cloud to each. The manifests are written by the benchmark
# itself. Writes benches/results/list_remote.md. Needs diagctl-remote beside diagctl.
#
#   ruby benches/list_remote.rb [CAPTURES]     ROUNDS=3 NODES=1000 DAYS=30

require "json"
require "net/http"
require "socket"
require "tmpdir"
require_relative "support/machine"

class ListRemoteBench
  CAPTURES = Integer(ARGV.fetch(0, 100_000))
  NODES = Integer(ENV.fetch("NODES", "1000"))
  DAYS = Integer(ENV.fetch("DAYS", "30"))
  ROUNDS = Integer(ENV.fetch("ROUNDS", "3"))
  SERVER = ENV.fetch("DIAGCTL_TEST_S3S", nil)
  REPORTS = %w[gc_stat heap_summary jemalloc_stats smaps object_counts process threads].freeze
  KEY = { "AWS_ACCESS_KEY_ID" => "bench", "AWS_SECRET_ACCESS_KEY" => "benchbench" }.freeze

  def run
    Dir.mktmpdir("diagctl-bench-") do |dir|
      @dir = dir
      @files = File.join(dir, "files/bucket/fleet")
      make
      rows = measure("a directory", "url = \"file://#{@files}\"")
      rows += with_server { |endpoint, requests| measure("S3 (s3s-fs)", "url = \"s3://bucket/fleet\"\nendpoint = \"#{endpoint}\"", requests) } if SERVER
      report(rows)
    end
  end

  private

  def make
    @today = Time.now.utc
    DAYS.times do |day|
      date = (@today - (day * 86_400)).strftime("%Y-%m-%d")
      FileUtils.mkdir_p(File.join(@files, "manifests", date))
      NODES.times do |node|
        count = captures_of(day, node)
        next if count.zero?

        lines = Array.new(count) { |n| JSON.generate(line(date, node, n)) }
        File.write(File.join(@files, "manifests", date, format("web-%d~%08x.jsonl", node, node)), "#{lines.join("\n")}\n")
      end
    end
  end

  # As even as whole numbers can be.
  def captures_of(day, node)
    slot = (day * NODES) + node
    (CAPTURES * (slot + 1) / (NODES * DAYS)) - (CAPTURES * slot / (NODES * DAYS))
  end

  def line(date, node, number)
    id = format("%sT%02d%07dZ-%08x", date.delete("-"), number % 24, node * 100 % 10_000_000, (node << 8) | number)
    { id: id, sequence: number, created: format("%sT%02d:00:00.000Z", date, number % 24), store_ms: 1_795_891_236_688, host: "web-#{node}.acme.example",
      pid: 4711, role: "puma", worker: "worker-#{number % 4}", rule: "bloat", reason: "rss is 1.3 GiB, above 1.2 GiB for 5m",
      reports: REPORTS.map { |name| { name: name, stored_bytes: 12_345, raw_bytes: 98_765 } }, disk_bytes: 131_072, pinned: false, shipped: true }
  end

  def measure(kind, section, requests = [])
    configure(section)
    rows = [row(kind, "a manifest for each machine and day", requests)]
    diagctl!("gc", "--remote", "--max-age", "3650d")
    rows << row(kind, "merged by `gc --remote`", requests)
    rows << row(kind, "merged, `--since 7d`", requests, "--since", "7d")
    FileUtils.rm_rf(File.join(@files, "merged"))
    rows
  end

  def configure(section)
    @env = { "PATH" => "#{File.dirname(Bench::BINARY)}:#{ENV.fetch("PATH")}", "HOME" => @dir, "DIAGCTL_CONFIG" => File.join(@dir, "diagctl.toml"),
             "DIAGCTL_DIR" => File.join(@dir, "store") }.merge(KEY)
    File.write(@env.fetch("DIAGCTL_CONFIG"), "[remote]\n#{section}\n")
  end

  def row(kind, manifests, requests, *options)
    list(*options)
    runs = Array.new(ROUNDS) do
      requests.clear
      list(*options) + [requests.size]
    end
    lines, wall, cpu, count = runs.transpose.map { |values| values.sort[values.size / 2] }
    [kind, manifests, lines, format("%.2f s", wall), format("%.2f s", cpu), kind.start_with?("S3") ? count : ""]
  end

  def list(*options)
    before = Process.times
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    lines = IO.popen(@env, [Bench::BINARY, "list", "--remote", *options], unsetenv_others: true, &:readlines).size
    abort "list failed" unless $?.success?
    wall = Process.clock_gettime(Process::CLOCK_MONOTONIC) - start
    after = Process.times
    [lines - 1, wall, after.cutime + after.cstime - before.cutime - before.cstime]
  end

  def diagctl!(*argv) = system(@env, Bench::BINARY, *argv, unsetenv_others: true, out: File::NULL) || abort("#{argv.join(" ")} failed")

  def with_server
    port = TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }
    pid = spawn(SERVER, "--host", "127.0.0.1", "--port", port.to_s, "--access-key", KEY.values[0], "--secret-key", KEY.values[1],
                File.join(@dir, "files"), %i[out err] => File.join(@dir, "server.log"))
    log = []
    sleep 0.05 until (TCPSocket.new("127.0.0.1", port).close || true rescue false)
    yield "http://127.0.0.1:#{port}", log
  ensure
    Process.kill(:KILL, pid)
    Process.wait(pid)
  end
end

ListRemoteBench.new.run if $PROGRAM_NAME == __FILE__
