# frozen_string_literal: true

require_relative "support/torture"
require_relative "support/hanging"

# Two containers on one store, each a pid namespace with workers that load a C extension whose free function hangs in any other
# process. Workers, dumpers and their programs are killed and stopped at random, while people ask for captures.
class NamespacesTest < Torture::Case
  include Torture::Hanging

  CONTAINER = %w[unshare --pid --fork --kill-child --mount-proc].freeze
  WORKERS = Torture::FULL ? 6 : 3
  SECONDS = Torture::FULL ? 300 : 30
  # Seconds after which a dumper that was left stopped and alone is ended.
  OVERDUE = 16
  CAP = 3 << 20
  # Process 1 of a container. It starts its workers anew when they die.
  PROGRAM = <<~'RUBY'
    require "diagctl"
    count = Integer(ARGV.fetch(0))
    root = ARGV.fetch(1)
    TELL = ->(file, line) { File.open(File.join(root, file), File::WRONLY | File::APPEND | File::CREAT) { |io| io.syswrite("#{line}\n") } }
    # A lock that no child inherits (F_SETLK, F_WRLCK): the dumper's alone.
    module Witness
      LOCK = [1, 0, 0, 0, 0].pack("s!s!x4q!q!ix4")
      def apply(*)
        super.tap do
          $witness = File.open(ENV.fetch("WITNESS"), "a")
          $witness.fcntl(6, LOCK)
          TELL.("dumps", Process.pid)
        rescue Errno::EAGAIN, Errno::EACCES
          TELL.("wrong", "two dumpers at once")
        end
      end
    end
    work = lambda do |number|
      require ENV.fetch("HANGING")
      Diagctl::Runtime.load
      Diagctl::Isolation.prepend(Witness)
      Diagctl.configure { |c| c.first_poll_within = 0.1 }
      Diagctl.start(role: ENV.fetch("ROLE"), name: "worker-#{number}")
      # This process makes garbage whose sweep is never done.
      Thread.new { loop { GC.start(immediate_sweep: false); sleep 0.2 } }
      secret = "SECRET-#{ENV.fetch("ROLE")}-of-a-customer"
      served = 0
      loop do
        $kept = { secret => [secret.dup] }
        50.times { Hanging.make }
        sleep 0.005
        served += 1
        File.write(File.join(root, "served-#{ENV.fetch("ROLE")}-#{number}"), served) if (served % 20).zero?
      end
    end
    start = ->(number) { fork { work.call(number) } }
    workers = Array.new(count, &start)
    loop do
      ended = Process.wait
      number = workers.index(ended) and workers[number] = start.call(number)
    end
  RUBY

  def setup
    super
    skip "no pid namespace can be made here" unless system(*CONTAINER, "true", %i[out err] => File::NULL)
    File.write(path("program.rb"), PROGRAM)
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat heap_dump smaps_rollup]),
              guards: "min_free_disk = \"1%\"\nmemory_headroom = 0.1\ndeadline = \"5s\"",
              retention: "keep_free = \"1%\"\nmax_use = \"#{CAP >> 20}MiB\"\nkeep_last = 0")
  end

  def test_no_guarantee_breaks_in_a_storm_of_two_containers
    containers = %w[left right].map { |role| container(role) }
    wait_until("both poll", deadline: 60, tell: -> { log("container.log").join }) { polled?("left") && polled?("right") }
    askers = [false, true].map { |heap| start { ask(heap) } }
    storm([*containers, *askers])
    E2E::Processes.signal(:KILL, *askers)
    everybody.each { |process| E2E::Processes.signal(:CONT, process.pid) }

    assert_nothing_went_wrong
    assert_serves
    assert_lease_comes_back
    assert_nothing_went_wrong
    end_everybody
    assert_acknowledged
    assert_private
    assert_reasons
    verified = diagctl("verify", "--all")
    assert verified.ok?, verified
    assert_sound(@store, kept: {}, what: "after the storm, SEED=#{Torture::SEED}")
    warn "#{name}: #{log('dumps').size} dumps begun, #{acknowledged_ids.size} acknowledged, #{@signals} signals, at most #{@most >> 10} KiB"
  end

  private

  def path(name) = File.join(@root, name)

  def log(name) = File.exist?(path(name)) ? File.readlines(path(name), chomp: true) : []

  def container(role)
    variables = env(ROLE: role, RUBYLIB: E2E::PumaServer::LOAD_PATH, HANGING: (@extension ||= hanging_extension), HANG_IN: "free",
                    HANG_LOG: path("freed"), WITNESS: path("witness"))
    Process.spawn(variables, *CONTAINER, RbConfig.ruby, path("program.rb"), WORKERS.to_s, @root, in: File::NULL,
                  %i[out err] => [path("container.log"), "a"], unsetenv_others: true)
  end

  def polled?(role) = Dir[File.join(@store, "samples/*.json")].any? { |file| File.read(file).include?(%("#{role}")) }

  def start
    fork do
      loop { yield }
    ensure
      exit!(1)
    end
  end

  # A person who asks, and is told an id.
  def ask(heap)
    result = diagctl("request", *(heap ? %w[gc_stat heap_dump] : %w[gc_stat]), "--reason", "storm", "--wait", deadline: 60)
    File.open(path("acknowledged"), "a") { |file| file.syswrite("#{result.out.strip}\n") } if [0, 5].include?(result.status)
    sleep 0.2
  end

  def everybody(spared = [])
    E2E::Processes.descendants.reject { |process| spared.include?(process.pid) || spared.include?(process.ppid) }
  end

  # Signals a random process: a worker, a dumper, or a program of diagctl; every other time one that takes part in a dump. A dumper
  # that is stopped sometimes stays so, and loses its worker: then another process ends it.
  def storm(spared)
    random = Random.new(Torture::SEED)
    @signals = @most = 0
    limit = E2E.clock + SECONDS
    abandoned = limit - OVERDUE
    until E2E.clock > limit
      found = everybody(spared)
      dumper = found.find(&:dumper?)
      if dumper && abandoned && E2E.clock > abandoned
        abandoned = nil
        E2E::Processes.signal(:STOP, dumper.pid)
        E2E::Processes.signal(:KILL, dumper.ppid)
      else
        disturb(found, random)
      end
      E2E::Processes.reap
      measure
      sleep 0.1
    end
  end

  def disturb(found, random)
    busy = found.select { |process| process.dumper? || process.binary?("put") || process.binary?("finalize") }
    victim = (random.rand(2).zero? && busy.sample(random: random)) || found.sample(random: random) or return
    @signals += 1
    return E2E::Processes.signal(:KILL, victim.pid) if random.rand(3).zero?

    E2E::Processes.signal(:STOP, victim.pid)
    sleep random.rand * 0.1
    E2E::Processes.signal(:CONT, victim.pid)
  end

  # A capture that is published meanwhile is seen twice, but not in two looks.
  def measure
    used = Array.new(2) { Dir.glob("#{@store}/**/*", File::FNM_DOTMATCH).sum { |file| File.lstat(file).blocks * 512 rescue 0 } }.min
    @most = [@most, used].max
    assert_operator used, :<=, CAP
  end

  # Every worker goes on, whatever was done to the others.
  def assert_serves
    before = served
    wait_until("all workers serve", deadline: 30, tell: -> { "#{served}\n#{log("container.log").last(20).join("\n")}" }) do
      served.then { |now| now.size == 2 * WORKERS && now.all? { |worker, count| count != before[worker] } }
    end
  end

  def assert_nothing_went_wrong
    refute_path_exists path("wrong"), -> { File.read(path("wrong")) }
    refute_path_exists path("freed"), -> { "code of the application ran in a dumper: #{File.read(path("freed"))}" }
  end

  # Nobody else may read the store, and nothing in it holds a value of the application.
  def assert_private
    Dir.glob("#{@store}/**/*", File::FNM_DOTMATCH).each do |path|
      stat = File.lstat(path)
      assert_equal stat.directory? ? 0o700 : 0o600, stat.mode & 0o7777, path
      next unless stat.file?

      refute_includes content(path), "-of-a-customer", path
    end
  end

  def content(path)
    case File.extname(path)
    when ".gz" then IO.popen(["gzip", "-dcq", path], "rb", err: File::NULL, &:read)
    when ".zst" then diagctl("fetch", "#{File.basename(File.dirname(path))}:heap_dump", "-o", "-").out.b
    else File.binread(path)
    end
  end

  # Every "no" says why.
  def assert_reasons
    refused = events.select { |event| event["verdict"] }
    refute_empty refused
    assert_empty refused.select { |event| event["reason"].to_s.strip.empty? }
  end

  def events = diagctl!("events", "--json").json.fetch("events")

  def served = Dir[path("served-*")].to_h { |file| [File.basename(file), File.read(file)] }

  def assert_lease_comes_back
    result = diagctl("request", "gc_stat", "heap_dump", "--reason", "afterwards", "--wait", deadline: 90)
    assert result.ok?, "#{result}\n#{diagctl("status", "--explain")}"
    File.open(path("acknowledged"), "a") { |file| file.puts(result.out.strip) }
  end

  def end_everybody
    wait_until("everybody is gone") do
      E2E::Processes.signal(:KILL, *E2E::Processes.descendants.map(&:pid))
      E2E::Processes.reap.then { E2E::Processes.descendants.empty? }
    end
  end

  def acknowledged_ids = log("acknowledged").flat_map(&:split).uniq

  # Captures that are gone were deleted for their size. The store remembers the latest few hundred events.
  def assert_acknowledged
    refute_empty acknowledged_ids
    deleted = events.select { |event| event["event"] == "deleted" }.map { |event| event.fetch("id") }
    remembered = events.first.fetch("at").delete("-:.")
    gone = acknowledged_ids - captures.map { |capture| capture.fetch("id") } - deleted
    assert_empty gone.select { |id| id > remembered }
  end
end
