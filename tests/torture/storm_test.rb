# frozen_string_literal: true

require_relative "support/torture"

# Many workers, their dumpers, users who read and collect garbage, and an attacker who kills, stops and continues any of them at
# random. A witness that is independent of diagctl sees every dump.
class StormTest < Torture::Case
  WORKERS = Torture::FULL ? 32 : 8
  ROUNDS = Torture::FULL ? 3000 : 60
  KEPT = 40
  DUMPING = "dumping"

  def test_no_two_dumps_overlap_and_nothing_acknowledged_is_lost
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat heap_dump smaps_rollup]),
              retention: "keep_free = \"1%\"\nmax_captures = #{KEPT}\nkeep_last = 0")
    diagctl!("request", "gc_stat", "--reason", "the first")
    storm
    still

    refute_path_exists path("wrong"), -> { File.read(path("wrong")) }
    assert_no_overlap
    assert_acknowledged_are_there
    assert_sound(@store, kept: {}, what: "after the storm, SEED=#{Torture::SEED}")
    begun, ended = %w[begin end].map { |word| log("dumps").count { |line| line.start_with?(word) } }
    assert_operator begun, :>, ended, "nobody was killed during a dump"
    warn "#{name}: #{begun} dumps begun, #{log('acknowledged').size} acknowledged, #{@signals} signals"
  end

  private

  def path(name) = File.join(@root, name)

  def log(name) = File.exist?(path(name)) ? File.readlines(path(name), chomp: true) : []

  # A single write per line: O_APPEND keeps the lines of several writers intact.
  def tell(name, line) = File.open(path(name), File::WRONLY | File::APPEND | File::CREAT) { |file| file.syswrite("#{line}\n") }

  def storm
    random = Random.new(Torture::SEED)
    @signals = 0
    pids = Array.new(WORKERS) { |n| start { work(n) } }
    @helpers = [start { ask }, start { look }, start { collect }]
    wait_until("#{ROUNDS} dumps", deadline: 60 + ROUNDS, every: 0, tell: -> { diagctl("status", "--explain").to_s }) do
      disturb(random)
      pids.each_index { |i| pids[i] = start { work(i) } unless E2E::Processes.alive?(pids[i]) }
      E2E::Processes.reap
      log("dumps").count { |line| line.start_with?("begin") } > ROUNDS || File.exist?(path("wrong"))
    end
  end

  # Signals a random process: a worker, a dumper, its `put`, its `finalize`, or a reader; every other time one that takes part
  # in a dump. A stopped process is continued after a while.
  def disturb(random)
    everybody = E2E::Processes.descendants.reject { |process| @helpers.include?(process.pid) }
    busy = everybody.select { |process| process.binary?("put") || process.binary?("finalize") || process.argv.first == DUMPING }
    victim = (random.rand(2).zero? && busy.sample(random: random)) || everybody.sample(random: random) or return
    victim = victim.pid
    @signals += 1
    return E2E::Processes.signal(:KILL, victim) if random.rand(3).zero?

    E2E::Processes.signal(:STOP, victim)
    sleep random.rand * 0.02
    E2E::Processes.signal(:CONT, victim)
  end

  def still
    everybody = -> { E2E::Processes.descendants.map(&:pid) }
    E2E::Processes.signal(:KILL, *everybody.call)
    wait_until("everybody is gone") { E2E::Processes.reap.then { everybody.call.empty? } }
  end

  def start
    fork do
      loop { yield }
    rescue StandardError => e
      tell("wrong", e.full_message)
    ensure
      exit!(1)
    end
  end

  def work(number)
    dumper = holder
    dumper.acquire
    return sleep(0.1) unless dumper.granted? # with more frequent polls, 32 workers on two cores leave no time for the dumpers

    File.open(path("witness"), "a") do |witness|
      witness.flock(File::LOCK_EX | File::LOCK_NB) or tell("wrong", "#{dumper.capture}: somebody else is dumping")
      tell("dumps", "begin #{dumper.capture} #{E2E.clock}")
      Process.setproctitle(DUMPING)
      dumper.answer.fetch("reports").each do |report|
        sleep rand * 0.05
        dumper.put(report.fetch("name"), E2E.dump(Random.bytes(rand(60_000))), witness)
      end
      tell("dumps", "end #{dumper.capture} #{E2E.clock}")
    end
    result = dumper.finalize("--set", "worker=#{number}")
    tell("acknowledged", result.out.strip) if [0, 5].include?(result.status)
  ensure
    Process.setproctitle("idle")
    dumper&.close
  end

  def ask
    waiting = Dir.children(File.join(@store, "requests")).size
    return sleep(0.02) if waiting > 4

    expect(diagctl("request", "gc_stat", "--reason", "storm"), 0)
  end

  def look
    listing = diagctl("list", "--json")
    expect(listing, 0)
    tell("wrong", "listed as damaged: #{listing}") if listing.ok? && listing.json.fetch("damaged").any?
    fetched = diagctl("fetch", "latest:gc_stat", "-o", "-")
    expect(fetched, 0, 4)
  end

  def collect = expect(diagctl("gc"), 0)

  # Checks the exit status of a command, unless the command was killed.
  def expect(result, *statuses)
    tell("wrong", result.to_s) unless result.status.negative? || statuses.include?(result.status)
  end

  def assert_no_overlap
    open = nil
    log("dumps").each do |line|
      word, id, = line.split
      if word == "end"
        assert_equal open, id, "two dumps at once" if open
        open = nil
      else
        open = id # the previous dump was killed and has no end
      end
    end
    stamps = log("dumps").map { |line| line.split.last.to_f }
    assert_equal stamps.sort, stamps
  end

  # Retention keeps the newest captures, so none may be missing that is at least as new as the oldest one left.
  def assert_acknowledged_are_there
    acknowledged = log("acknowledged").map { |line| JSON.parse(line) }
    refute_empty acknowledged
    left = captures
    oldest = left.map { |capture| capture.fetch("sequence") }.min
    expected = acknowledged.select { |meta| meta.fetch("sequence") >= oldest }.map { |meta| meta.fetch("id") }
    refute_empty expected
    assert_empty expected - left.map { |capture| capture.fetch("id") }
    left.each { |capture| checksums(@store, capture.fetch("id")) }
  end
end
