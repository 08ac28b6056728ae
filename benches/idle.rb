# frozen_string_literal: true

# The cost of an idle poll: `diagctl acquire` against an empty process (`/bin/true`), interleaved, with 10 rules, 32 known
# processes and 100,000 captures in the store. Reports medians of CPU time and elapsed time, user-space instructions if valgrind
# is available, and syncs if strace is. Writes benches/results/idle.md.
#
#   ruby benches/idle.rb [CAPTURES]

require "fileutils"
require "json"
require "open3"
require "tmpdir"
require_relative "support/machine"
$LOAD_PATH.unshift File.expand_path("../ruby/diagctl/lib", __dir__)
require "diagctl"

Diagctl::Runtime.load

class IdleBench
  BINARY = Bench::BINARY
  RESULT = "idle.md"
  ROUNDS = 400
  PROCESSES = 32

  RULES = [
    'timer = { every = "2h", initial_delay = "1h" }',
    'memory_usage = { above = "95%" }',
    'memory_usage = { above = ["8GiB", "9GiB"] }',
    'memory_growth = { min = "8GiB", diff = "30%" }',
    'memory_growth = { min = "8GiB", diff = "30%", baseline = "average" }',
    'high_water = { floor = "8GiB", step = "1GiB" }',
    'gauge = { name = "puma.backlog", above = 1000 }',
    'event = { name = "never" }',
    'any = [ { memory_usage = { metric = "anon", above = "8GiB" } }, { gauge = { name = "puma.backlog", above = 2000 } } ]',
    'all = [ { timer = { every = "1h", initial_delay = "1h" } }, { memory_usage = { above = "8GiB" } } ]'
  ].freeze

  def initialize(captures)
    @captures = captures
    @dir = Dir.mktmpdir("diagctl-bench-")
    @store = File.join(@dir, "store")
    @config = File.join(@dir, "diagctl.toml")
    @null = File.open(File::NULL, File::RDWR)
    ENV.update("DIAGCTL_ENABLED" => "1", "DIAGCTL_CONFIG" => @config, "DIAGCTL_DIR" => @store)
  end

  def run
    prepare
    times = measure
    instructions = count_instructions
    report(times, instructions, count_syncs, lock_time)
  ensure
    @others&.each { |pid| Process.kill(:KILL, pid) && Process.wait(pid) }
    FileUtils.rm_rf(@dir)
  end

  private

  def prepare
    rules = RULES.each_with_index.map { |trigger, i| "[[rules]]\nname = \"r#{i}\"\nreports = [\"smaps\"]\ntrigger.#{trigger}\n" }
    File.write(@config, "[guards]\nmin_free_disk = \"0%\"\n#{rules.join}")
    Dir.mkdir(@store, 0o700)
    @others = Array.new(PROCESSES - 1) { Process.spawn("sleep", "3600") }
    @others.each { |pid| poll(pid) }
    poll(Process.pid)
    warn "making #{@captures} captures…" if $stderr.tty?
    @captures.times { |i| make_capture(i) }
    system(BINARY, "list", "-n", "1", out: File::NULL) || abort("list failed")
  end

  def make_capture(i)
    id = format("20260101T%09dZ-%08x", i, i)
    dir = File.join(@store, "reports", id)
    Dir.mkdir(dir, 0o700)
    meta = { schema: 1, id: id, sequence: i + 1, created: "2026-01-01T00:00:00.000Z", store_ms: 1_767_225_600_000 + i,
             host: "bench", pid: 1, role: "puma", worker: "worker-0", rule: "r0",
             reports: [{ name: "smaps", file: "smaps.txt.gz", stored_bytes: 1000, raw_bytes: 9000 }] }
    File.write(File.join(dir, "meta.json"), JSON.generate(meta), perm: 0o600)
  end

  def argv(pid) = [BINARY, "--dir", @store, "acquire", "--lease-fd=3", "--pid=#{pid}", "--role=puma", "--name=worker-#{pid}", "--gauge=puma.backlog=1"]

  def with_lease = File.open(File.join(@store, "lease.lock"), File::RDWR | File::CREAT, 0o600) { |file| yield file }

  def poll(pid)
    Diagctl::Lease.open(@store) do |lease|
      outcome = Diagctl::Spawn.run(argv(pid), lease: lease.io, timeout: 60)
      verdict = JSON.parse(outcome.stdout).fetch("verdict")
      abort "the poll was not idle: #{outcome.stdout}#{outcome.stderr}" unless verdict == "idle"
    end
  end

  # Returns medians of CPU time and elapsed time, in microseconds.
  def measure
    times = Hash.new { |hash, name| hash[name] = [] }
    commands = { "/bin/true" => ["/bin/true"], "diagctl acquire" => argv(Process.pid) }
    ROUNDS.times { commands.each { |name, command| times[name] << spawn_and_wait(command) } }
    poll(Process.pid) # Aborts unless this poll is idle, as the measured ones then were.
    times.transform_values { |list| list.transpose.map { |each| each.sort[each.size / 2] } }
  end

  # Spawns as the plugin does, but only waits for the end: the way in which the plugin waits is not part of a process's cost.
  def spawn_and_wait(command)
    with_lease do |lease|
      before = Process.times
      start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      Process.wait(Diagctl::PosixSpawn.call(command, [], { 0 => @null, 1 => @null, 2 => @null, 3 => lease }))
      wall = Process.clock_gettime(Process::CLOCK_MONOTONIC) - start
      after = Process.times
      abort "#{command.join(" ")} ended with #{$?}" unless [0, 10].include?($?.exitstatus)
      [after.cutime + after.cstime - before.cutime - before.cstime, wall].map { |seconds| (seconds * 1_000_000).round }
    end
  end

  def count_instructions
    return unless tool?("valgrind")

    { "/bin/true" => ["/bin/true"], "diagctl acquire" => argv(Process.pid) }.transform_values do |command|
      with_lease do |lease|
        _, err, = Open3.capture3("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command, 3 => lease.fileno)
        err[/Collected : (\d+)/, 1].to_i
      end
    end
  end

  def count_syncs
    return unless tool?("strace")

    with_lease do |lease|
      _, err, = Open3.capture3("strace", "-f", "-e", "trace=fsync,fdatasync,sync,syncfs,sync_file_range", *argv(Process.pid), 3 => lease.fileno)
      err.scan(/\b(?:fsync|fdatasync|sync|syncfs|sync_file_range)\(/).size
    end
  end

  # Returns the median time that the lock was held, as diagctl measures it, in microseconds.
  def lock_time
    ENV["DIAGCTL_LOG"] = "debug"
    times = Array.new(101) do
      Diagctl::Lease.open(@store) do |lease|
        Diagctl::Spawn.run(argv(Process.pid), lease: lease.io, timeout: 60).stderr[/held for (\d+)/, 1].to_i
      end
    end
    times.sort[times.size / 2]
  ensure
    ENV.delete("DIAGCTL_LOG")
  end

  def tool?(name) = system("command -v #{name} >/dev/null")

  def report(times, instructions, syncs, lock)
    cpu, wall = times.values_at("/bin/true", "diagctl acquire").transpose
    lines = ["# An idle poll", "", "`ruby benches/idle.rb #{@captures}`: #{RULES.size} rules, #{PROCESSES} known processes, #{@captures} captures.",
             "Interleaved, #{ROUNDS} rounds, medians. #{Bench.machine}", "",
             "| | /bin/true | diagctl acquire | ratio |", "|---|---|---|---|",
             format("| CPU time | %d µs | %d µs | %.2f |", *cpu, cpu[1].fdiv(cpu[0])),
             format("| from start to end | %d µs | %d µs | %.2f |", *wall, wall[1].fdiv(wall[0]))]
    if instructions
      pair = instructions.values_at("/bin/true", "diagctl acquire")
      lines << format("| instructions in user space (callgrind) | %d | %d | %.2f |", *pair, pair[1].fdiv(pair[0]))
    end
    lines << "" << "Syncs in an idle poll: #{syncs}." if syncs
    lines << "" << "The state lock is held for #{lock} µs (median)."
    Bench.write(RESULT, lines)
  end
end

IdleBench.new(Integer(ARGV.fetch(0, 100_000))).run
