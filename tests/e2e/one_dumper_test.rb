# frozen_string_literal: true

require_relative "support/e2e"

# There are never two dumps at once, whichever process is killed, and the next one finds a clean store.
class OneDumperTest < E2E::Case
  KILLS = 12

  def test_eight_workers_under_kill_9_never_overlap
    witness = E2E::Witness.new(@root)
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat heap_dump]), poll_interval: "100ms")
    server = puma(env: env(DIAGCTL_BIN: witness.binary), workers: 8, initializer: "HEAP = Array.new(200_000) { |i| i.to_s * 10 }")
    traffic = E2E::Traffic.new(server)
    KILLS.times { kill_a_dumper }
    assert_equal 0, traffic.stop.failed

    # A dumper has the lowest priority: beside programs that keep every processor busy it takes minutes.
    diagctl!("request", "heap_dump", "--reason", "after the storm", "--wait", deadline: 300)
    server.stop
    wait_until("the last dumper is done") { E2E::Processes.descendants.empty? }
    assert witness.saw?, "no put was witnessed"
    assert_empty witness.overlaps
    # Puma may have been stopped in the middle of a grant.
    wait_until("a last capture") { poll_once }
    assert_store_is_whole
  end

  def test_eight_holders_without_puma_never_overlap
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat heap_dump]))
    holders = Array.new(8) { start_holder }
    requests = Thread.new { request_for(8) }
    until requests.join(rand * 0.3)
      victim = holders.sample
      E2E::Processes.signal(:KILL, victim)
      holders[holders.index(victim)] = start_holder
    end
    E2E::Processes.signal(:KILL, *holders)
    wait_until("the holders are gone") { E2E::Processes.reap.then { E2E::Processes.descendants.empty? } }

    refute_path_exists File.join(@root, "overlaps")
    assert_operator File.read(File.join(@root, "grants")).lines.size, :>, 5
    # The next grant, which the timer gives within a second, deletes the leftovers of the killed.
    wait_until("a last capture") { poll_once }
    assert_store_is_whole
  end

  def test_lease_is_free_at_once_when_its_holder_is_killed_during_a_put
    dumper = granted("heap_dump")
    first = dumper.capture
    pipe, put = dumper.start_put("heap_dump")
    pipe.write("{}\n" * 100_000)
    second = holder
    assert_equal 10, second.acquire.status
    assert_equal "busy", second.answer.fetch("verdict")

    E2E::Processes.signal(:KILL, put)
    Process.wait(put)
    pipe.close
    dumper.close
    assert_equal 0, second.acquire.status
    assert_equal [second.capture], Dir.children(File.join(@store, "staging")), "what the dead one left"
    assert second.put("heap_dump", E2E.dump("")).ok?, "the request that came to nothing is tried again"
    assert second.finalize.ok?
    refute_equal first, second.capture
    assert_store_is_whole
  end

  private

  # Kills a dumper at any moment of its life, even after it has become `diagctl finalize`. Every third time it kills a `put`
  # too.
  def kill_a_dumper
    wait_until("a dumper is killed", every: 0.002) do
      dumper = E2E::Processes.descendants.find(&:dumper?) or next
      sleep rand * 0.4
      next unless E2E::Processes.alive?(dumper.pid)

      puts_of_it = E2E::Processes.descendants(dumper.pid).map(&:pid)
      E2E::Processes.signal(:KILL, dumper.pid, *(puts_of_it if rand(3).zero?))
    end
  end

  # A process that polls continuously and dumps when granted, holding the witness's lock during each dump.
  def start_holder
    fork do
      Signal.trap(:TERM, "DEFAULT")
      loop { poll_once }
    rescue StandardError => error
      File.write(File.join(@root, "overlaps"), "#{error.full_message}\n", mode: "a")
    ensure
      exit!(1)
    end
  end

  def poll_once
    dumper = holder
    dumper.acquire
    return unless dumper.granted?

    File.open(File.join(@root, "witness"), "a") do |witness|
      witness.flock(File::LOCK_EX | File::LOCK_NB) or File.write(File.join(@root, "overlaps"), "#{dumper.capture}\n", mode: "a")
      File.write(File.join(@root, "grants"), "#{dumper.capture}\n", mode: "a")
      dumper.answer.fetch("reports").each { |report| dumper.put(report.fetch("name"), Random.bytes(200_000)) }
      sleep rand * 0.1
    end
    dumper.finalize
  ensure
    dumper&.close
  end

  def request_for(seconds)
    stop_at = E2E.clock + seconds
    while E2E.clock < stop_at
      diagctl("request", "heap_dump", "--reason", "storm")
      sleep 0.05
    end
  end

  # Asserts that every listed capture is complete and matches its checksums, and that nothing is half-written.
  def assert_store_is_whole
    assert_nothing_staged
    listed = captures
    refute_empty listed
    assert_equal listed.map { |capture| capture["id"] }.sort, Dir.children(File.join(@store, "reports")).sort
    listed.each do |capture|
      meta(capture.fetch("id")).fetch("reports").each do |report|
        next if report["error"]

        result = diagctl!("fetch", "#{capture['id']}", report.fetch("name"), "-o", "-")
        assert_equal report.fetch("raw_bytes"), result.out.bytesize
      end
    end
  end
end
