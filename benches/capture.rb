# frozen_string_literal: true

# The effect of a heap dump on a site's users: latency of a real Puma under a fixed arrival rate (support/open_loop.rb). Only
# requests that were due during a dump count. The variants are:
#
#   (a) the observed worker does not dump
#   (b) diagctl captures it
#   (c) it has forked a child that sleeps for as long: the floor for everything that forks, which is the fork itself and the pages
#       that are copied afterwards
#   (d) it does nothing while an unrelated program computes at nice 19: shows whether this machine has a CPU to spare
#   (e) both (c) and (d): the result of (b) if it did nothing to the worker except fork once
#   (f) the worker dumps to a file by itself
#   (g) the worker dumps into `gzip --fast`, as GitLab does
#
# Variants are interleaved, and the requests of all rounds are pooled. A bare fork of the same worker is timed as well.
#
#   ruby benches/capture.rb           an application that answers in a millisecond, as nobody, and also as root when started as root,
#                                     where Ruby's own spawning makes a full fork. Writes benches/results/capture.md.
#   ruby benches/capture.rb redmine   a real Rails application, only in an image of the matrix: see make bench-redmine. Writes redmine.md.
#
#   SIZES=0.3,1,2 (GB of a single worker) PAIR=1 (GB of each of two workers; empty: none) LIMITED=1 (GB of a worker under a CPU limit)
#   ROUNDS=3 RATE=100 (requests a second) MEASURED=4 (s)

require_relative "../tests/e2e/support/wait"
require_relative "../tests/e2e/support/cgroup"
require_relative "support/load"
require_relative "support/puma_server"

class CaptureBench
  SERVER = { nil => BloatedServer, "redmine" => RedmineServer }.fetch(ARGV[0])
  SIZES = ENV.fetch("SIZES", "0.3,1,2").split(",").map { |size| Float(size) }
  PAIR = ENV.fetch("PAIR", "1").split(",").map { |size| Float(size) }
  LIMITED = ENV.fetch("LIMITED", "1").split(",").map { |size| Float(size) }
  ROUNDS = Integer(ENV.fetch("ROUNDS", "3"))
  RATE = Integer(ENV.fetch("RATE", SERVER::RATE))
  # A short dump is repeated until this many seconds have been measured.
  MEASURED = Float(ENV.fetch("MEASURED", "4"))
  FORKS = 15
  WAYS = { none: "no dump", diagctl: "diagctl", fork: "a fork that sleeps", busy: "something else computes", both: "both",
           file: "`dump_all` to a file", gzip: "`dump_all` to `gzip --fast`" }.freeze

  # The conditions of a measurement and its results: a list of runs for each way.
  Scene = Struct.new(:user, :size, :workers, :rss, :forks, :spawns, :runs)
  # One round of one way. `errors` is a count by name; `metas` are the records of the captures.
  Run = Struct.new(:latencies, :errors, :seconds, :metas, :lag)

  def run
    users = SERVER::USERS
    scenes = users.keys.product(SIZES, [1]) + [users.keys.first].product(PAIR, [2])
    measured = scenes.map { |user, size, workers| measure(Scene.new(user, size, workers), users[user]) }
    report(measured + LIMITED.filter_map { |size| limited(users.keys.first, size) })
  end

  private

  # One worker in a container with a CPU limit of 1, where a dump's CPU time is taken from the requests.
  def limited(user, size)
    cgroup = E2E::Cgroup.with_cpu(100) or return warn("no CPU cgroup can be made here: #{E2E::Cgroup.why}")
    begin
      measure(Scene.new("#{user}, limit 1 CPU", size, 1), cgroup.enter + SERVER::USERS[user])
    ensure
      cgroup.remove
    end
  end

  # The variant without a dump is never measured right after a fork, because shared pages stay write-protected until the process
  # writes to them.
  def measure(scene, wrapper)
    scene.runs = WAYS.transform_values { [] }
    SERVER.open(scene.size, scene.workers, wrapper) do |server|
      scene.rss = server.ask("rss").fetch("rss")
      ROUNDS.times do |round|
        WAYS.keys.rotate(round).each do |way|
          warn "#{scene.size} GB as #{scene.user}, #{scene.workers} workers, round #{round + 1}: #{WAYS[way]}" if $stderr.tty?
          scene.runs[way] << one(server, scene, way)
        end
      end
      scene.forks, scene.spawns = %w[fork spawn].map { |what| timed(server, what) }
    end
    scene
  end

  # Measures the time of a fork or spawn, under the same load.
  def timed(server, what)
    load = Bench::Load.new(server, RATE)
    Array.new(FORKS) { sleep(0.2) && server.ask(what) }.tap { load.finish }
  end

  def one(server, scene, way)
    Bench.warm((scene.size * 1.5e9).round)
    load = Bench::Load.new(server, RATE)
    sleep 0.5 # for the generator to start
    windows = []
    metas = []
    while windows.sum { |from, to| to - from } < MEASURED
      from = now
      metas << server.dump(way, MEASURED)
      windows << [from, now]
      sleep 0.2
    end
    requests, lag = load.finish
    during = requests.filter_map { |due, outcome| outcome if windows.any? { |from, to| due.between?(from, to) } }
    latencies, errors = during.partition { |outcome| outcome.is_a?(Float) }
    Run.new(latencies, errors.tally, windows.sum { |from, to| to - from } / windows.size, metas.compact, lag)
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  def median(list) = list.sort[list.size / 2]

  def percentile(sorted, share) = sorted.empty? ? Float::NAN : sorted[[(sorted.size * share).ceil - 1, 0].max]

  def report(scenes)
    lines = ["# The effect of a heap dump on a serving worker", "",
             "`#{["ruby benches/capture.rb", *ARGV].join(" ")}`: a real Puma with #{SERVER::TITLE}; #{RATE} requests a second whether it answers or not,",
             "latencies from the moment at which a request was due, only of requests that were due during a dump; rounds: #{ROUNDS}, interleaved and taken",
             "together. The workers, the load, the dumper and its compression share the CPUs. #{Bench.machine}", "",
             "p99 during a dump, to that without one:", ""]
    lines.concat(table("RSS", "as", "workers", "no dump", *WAYS.values.drop(1)) { scenes.map { |scene| ratio_row(scene) } })
    lines << "" << "In full:" << ""
    lines.concat(table("RSS", "as", "workers", "", "p50", "p95", "p99", "max", "requests", "failed", "one dump takes") { scenes.flat_map { |scene| latency_rows(scene) } })
    lines << "" << "The pause that the worker measured in a capture (fork and inline reports), beside a bare `fork` of the same process under the" \
                   " same load; `put` compresses what the forked child dumps:" << ""
    lines.concat(table("RSS", "as", "workers", "bare fork", "diagctl: fork", "inline reports", "pause", "pause to (1.5 × bare fork + inline)", "raw", "stored",
                       "dumper CPU") { scenes.map { |scene| pause_row(scene) } })
    lines << "" << "Starting a program from that worker, until the worker goes on:" << ""
    lines.concat(table("RSS", "as", "workers", "diagctl (`posix_spawn`)", "`Process.spawn`") { scenes.map { |scene| spawn_row(scene) } })
    lag = scenes.flat_map { |scene| scene.runs.values.flatten.map(&:lag) }.max
    lines << "" << format("The load generator itself was never more than %.0f ms late.", lag)
    Bench.write(SERVER::RESULT, lines)
  end

  def table(*heads) = [heads, heads.map { "---" }, *yield].map { |cells| "| #{cells.join(" | ")} |" }

  def about(scene) = [format("%.2f GB", scene.rss / 1e9), scene.user, scene.workers]

  def typical(scene, way, share) = percentile(scene.runs[way].flat_map(&:latencies).sort, share)

  def ratio_row(scene)
    base = typical(scene, :none, 0.99)
    [*about(scene), format("%.1f ms", base), *WAYS.keys.drop(1).map { |way| format("%.2f", typical(scene, way, 0.99) / base) }]
  end

  def latency_rows(scene)
    scene.runs.map do |way, runs|
      failed = runs.map(&:errors).reduce { |all, more| all.merge(more) { |_, a, b| a + b } }
      [*about(scene), WAYS[way], *[0.5, 0.95, 0.99].map { |share| format("%.1f ms", typical(scene, way, share)) },
       format("%.0f ms", runs.flat_map(&:latencies).max || Float::NAN), runs.sum { |run| run.latencies.size + run.errors.values.sum },
       failed.empty? ? "0" : failed.map { |name, count| "#{count} #{name}" }.join(", "), way == :none ? "" : format("%.1f s", median(runs.map(&:seconds)))]
    end
  end

  def pause_row(scene)
    metas = scene.runs[:diagctl].flat_map(&:metas)
    cost = ->(name) { median(metas.map { |meta| meta.fetch("cost").fetch(name) }) }
    heap = metas.last.fetch("reports").find { |report| report["name"] == "heap_dump" }
    fork = median(scene.forks.map { |answer| answer.fetch("ms") })
    bound = 1.5 * fork + cost["inline_ms"]
    [*about(scene), format("%.1f ms", fork), format("%.1f ms", cost["fork_ms"]), format("%.2f ms", cost["inline_ms"]),
     format("%.1f ms", cost["pause_ms"]), format("%.2f", cost["pause_ms"] / bound), format("%.0f MB", heap["raw_bytes"] / 1e6),
     format("%.1f MB", heap["stored_bytes"] / 1e6), format("%.1f s", cost["dumper_cpu_ms"] / 1e3)]
  end

  def spawn_row(scene)
    [*about(scene), *%w[ours rubys].map { |whose| format("%.2f ms", median(scene.spawns.map { |answer| answer.fetch(whose) })) }]
  end
end

CaptureBench.new.run
