# frozen_string_literal: true

# What the users of a site notice of a heap dump: latency under a fixed arrival rate (support/open_loop.rb), from a real Puma
# whose only worker is the one that dumps, while it (a) does not dump, (b) is captured by diagctl, (c) has forked a child that
# sleeps for as long, (d) dumps to a file by itself, (e) dumps into `gzip --fast` as GitLab does. Only requests that were due
# during a dump count. (c) is the floor under whatever forks: the fork itself, and the pages that are copied afterwards. Besides,
# how long a bare fork of the same worker takes. Variants are interleaved; medians over the rounds. As nobody and, when started as
# root, as root: there Ruby's own spawning forks in full. And with a second worker beside the one that dumps, as sites have.
# Writes benches/results/capture.md.
#
#   ruby benches/capture.rb         SIZES=0.3,1,2 (GB) PAIR=1 (GB; empty: none) ROUNDS=3 RATE=100 (requests a second)

require "json"
require "open3"
require "rbconfig"
require "socket"
require "tmpdir"
require_relative "support/machine"

class CaptureBench
  SIZES = ENV.fetch("SIZES", "0.3,1,2").split(",").map { |size| Float(size) }
  PAIR = ENV.fetch("PAIR", "1").split(",").map { |size| Float(size) }
  ROUNDS = Integer(ENV.fetch("ROUNDS", "3"))
  RATE = Integer(ENV.fetch("RATE", "100"))
  # A short dump is repeated until so many seconds were measured.
  MEASURED = 4.0
  FORKS = 15
  # The clients of a site have computers of their own: here their stand-in goes first, which only root may do.
  AHEAD = system("chrt", "--fifo", "1", "true", out: File::NULL, err: File::NULL) ? %w[chrt --fifo 1] : []
  NOBODY = %w[setpriv --reuid=65534 --regid=65534 --clear-groups].freeze
  SUPPORT = File.expand_path("support", __dir__)
  RESULT = File.expand_path("results/capture.md", __dir__)
  WAYS = { none: "no dump", diagctl: "diagctl", fork: "a fork that sleeps", file: "`dump_all` to a file", gzip: "`dump_all` to `gzip --fast`" }.freeze

  # What is measured, and what came of it: by way, a list of runs.
  Scene = Struct.new(:user, :size, :workers, :rss, :forks, :spawns, :runs)
  # One round of one way. `errors` counts by name; `metas` are those of the captures.
  Run = Struct.new(:latencies, :errors, :seconds, :metas, :lag)

  def run
    users = Process.uid.zero? ? { "nobody" => NOBODY, "root" => [] } : { `id -un`.strip => [] }
    scenes = users.keys.product(SIZES, [1]) + [users.keys.first].product(PAIR, [2])
    report(scenes.map { |user, size, workers| measure(Scene.new(user, size, workers), users[user]) })
  end

  private

  # No dump is never measured right after a fork: what a process has shared stays write-protected until it writes to it.
  def measure(scene, wrapper)
    scene.runs = WAYS.transform_values { [] }
    Server.open(scene.size, scene.workers, wrapper) do |server|
      scene.rss = server.ask("rss").fetch("rss")
      ROUNDS.times do |round|
        WAYS.keys.rotate(round).each do |way|
          warn "#{scene.size} GB as #{scene.user}, #{scene.workers} workers, round #{round + 1}: #{WAYS[way]}" if $stderr.tty?
          scene.runs[way] << one(server, way)
        end
      end
      scene.forks, scene.spawns = %w[fork spawn].map { |what| timed(server, what) }
    end
    scene
  end

  # Under the same load.
  def timed(server, what)
    load = Load.new(server)
    Array.new(FORKS) { sleep(0.2) && server.ask(what) }.tap { load.finish }
  end

  def one(server, way)
    load = Load.new(server)
    sleep 0.5 # the generator starts
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
    Run.new(latencies.sort, errors.tally, windows.sum { |from, to| to - from } / windows.size, metas.compact, lag)
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  def median(list) = list.sort[list.size / 2]

  def percentile(sorted, share) = sorted.empty? ? Float::NAN : sorted[[(sorted.size * share).ceil - 1, 0].max]

  def report(scenes)
    lines = ["# What a heap dump does to a serving worker", "",
             "`ruby benches/capture.rb`: a real Puma, #{RATE} requests a second whether it answers or not, latencies from the moment at which a",
             "request was due, only of requests that were due during a dump. #{ROUNDS} rounds, interleaved; medians of the rounds, but max and",
             "failures of all. #{Bench.machine}", "", "p99 during a dump, to that without one:", ""]
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
    Bench.write(RESULT, lines)
  end

  def table(*heads) = [heads, heads.map { "---" }, *yield].map { |cells| "| #{cells.join(" | ")} |" }

  def about(scene) = [format("%.2f GB", scene.rss / 1e9), scene.user, scene.workers]

  # The median over the rounds.
  def typical(scene, way, share) = median(scene.runs[way].map { |run| percentile(run.latencies, share) })

  def ratio_row(scene)
    base = typical(scene, :none, 0.99)
    [*about(scene), format("%.1f ms", base), *WAYS.keys.drop(1).map { |way| format("%.2f", typical(scene, way, 0.99) / base) }]
  end

  def latency_rows(scene)
    scene.runs.map do |way, runs|
      failed = runs.map(&:errors).reduce { |all, more| all.merge(more) { |_, a, b| a + b } }
      [*about(scene), WAYS[way], *[0.5, 0.95, 0.99].map { |share| format("%.1f ms", typical(scene, way, share)) },
       format("%.0f ms", runs.filter_map { |run| run.latencies.last }.max), runs.sum { |run| run.latencies.size + run.errors.values.sum },
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

  # The generator, in a process of its own.
  class Load
    def initialize(server)
      @out, out = IO.pipe
      @pid = Process.spawn(*AHEAD, RbConfig.ruby, File.join(SUPPORT, "open_loop.rb"), server.port.to_s, RATE.to_s, out: out)
      out.close
    end

    # Every request: when it was due, and its latency in ms or what went wrong. And how late the generator was at worst, in ms.
    def finish
      Process.kill(:TERM, @pid)
      *requests, last = @out.read.lines.map(&:split)
      Process.wait(@pid)
      abort "the load generator failed" unless $?.success?
      [requests.map { |due, outcome| [due.to_f, outcome.match?(/\A\d/) ? outcome.to_f : outcome] }, last[1].to_f]
    end
  end

  # A Puma with workers of this size, and what can be asked of the one that dumps.
  class Server
    BOOT = 180

    attr_reader :port

    def self.open(size, workers, wrapper)
      Dir.mktmpdir("diagctl-bench-") do |dir|
        server = new(dir, size, workers, wrapper)
        begin
          server.start
          yield server
        ensure
          server.stop
        end
      end
    end

    def initialize(dir, size, workers, wrapper)
      @dir = dir
      @workers = workers
      @wrapper = wrapper
      @log = File.join(dir, "puma.log")
      @control = File.join(dir, "data", "control")
      @env = { "DIAGCTL_BIN" => File.join(dir, "diagctl"), "DIAGCTL_CONFIG" => File.join(dir, "diagctl.toml"), "DIAGCTL_ENABLED" => "1",
               "DIAGCTL_DIR" => File.join(dir, "data", "store"), "PATH" => ENV.fetch("PATH"), "LANG" => "C.UTF-8",
               "RUBYLIB" => "#{dir}/ruby/diagctl/lib:#{dir}/ruby/puma-plugin/lib" }
      lay_out((size * 1000 * 1.1).round) # of which nine tenths are to be seen as RSS
    end

    def start
      command = [*@wrapper, RbConfig.ruby, Gem.bin_path("puma", "puma"), "-C", File.join(@dir, "puma.rb")]
      @pid = Process.spawn(@env, *command, chdir: @dir, in: File::NULL, %i[out err] => [@log, "w"], unsetenv_others: true, pgroup: true)
      limit = now + BOOT
      until serving?
        abort "Puma does not serve:\n#{File.read(@log)}" if now > limit || Process.wait(@pid, Process::WNOHANG)

        sleep 0.2
      end
    end

    def stop
      Process.kill(:TERM, @pid)
      Process.wait(@pid)
    rescue Errno::ESRCH, Errno::ECHILD
      nil
    end

    def ask(*words)
      answer = UNIXSocket.open(@control) { |socket| socket.puts(words.join(" ")) || JSON.parse(socket.read) }
      answer["error"] ? abort("the worker says #{answer["error"]}") : answer
    end

    # Returns when it is over: the meta.json of a capture, nil for the other ways.
    def dump(way, seconds)
      return sleep(seconds) && nil if way == :none
      return capture if way == :diagctl
      return ask("held", @capturing) && nil if way == :fork

      ask(way, path = File.join(@dir, "data", "dump"))
      File.unlink(path)
      nil
    end

    private

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    # In a directory of its own that any user can read, because the checkout may be out of reach for nobody.
    def lay_out(megabytes)
      File.chmod(0o755, @dir)
      Dir.mkdir(File.join(@dir, "data"))
      File.chmod(0o777, File.join(@dir, "data"))
      FileUtils.cp(Bench::BINARY, File.join(@dir, "diagctl"))
      FileUtils.cp_r(File.expand_path("../ruby", __dir__), @dir)
      FileUtils.cp(File.join(SUPPORT, "bloated_app.rb"), @dir)
      write("config.ru", "require_relative 'bloated_app'\napp = BloatedApp.new(#{megabytes})\napp.listen(#{@control.inspect})\nrun app\n")
      write("puma.rb", <<~RUBY)
        workers #{@workers}
        threads 3, 3
        worker_timeout 600
        environment "production"
        bind "tcp://127.0.0.1:0"
        plugin :diagctl
      RUBY
      write("diagctl.toml", <<~TOML)
        poll_interval = "200ms"
        [guards]
        min_free_disk = "1%"
        memory_headroom = 0.1
        [limits]
        budget_hour = 1000000
        budget_day = 1000000
        [retention]
        keep_free = "1%"
        max_use = "20GiB"
      TOML
    end

    def write(name, content) = File.write(File.join(@dir, name), content)

    def serving?
      return false unless File.socket?(@control) && (@port = File.read(@log)[%r{Listening on http://127\.0\.0\.1:(\d+)}, 1]&.to_i)

      Dir.glob("#{@env.fetch("DIAGCTL_DIR")}/samples/*").size >= @workers
    end

    # As the user whose store it is: diagctl sees to that.
    def capture
      from = now
      @worker ||= ask("rss").fetch("pid").to_s
      out, err, status = Open3.capture3(@env, @env["DIAGCTL_BIN"], "request", "heap_dump", "gc_stat", "threads", "--pid", @worker,
                                        "--reason", "benchmark", "--wait", unsetenv_others: true)
      abort "no capture: #{out}#{err}\n#{File.read(@log)}" unless status.success?
      @capturing = now - from
      JSON.parse(File.read(File.join(@env["DIAGCTL_DIR"], "reports", out.strip, "meta.json")))
    end
  end
end

CaptureBench.new.run
