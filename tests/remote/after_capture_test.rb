# frozen_string_literal: true

require_relative "support/directory_case"

module E2E
  # `ship = "after_capture"`: a real Puma ships by itself, and nothing of that is in its way.
  class AfterCaptureTest < DirectoryCase
    def remote_section = "url = \"file://#{@files}\"\nship = \"after_capture\""

    def env(**more) = super(PATH: "#{File.dirname(REMOTE_BIN)}:#{ENV.fetch("PATH")}", **more)

    def test_a_worker_ships_each_capture_and_goes_on
      server = polling_puma
      ids = [request("gc_stat"), request("heap_dump", "smaps")]
      ids.each { |id| wait_until("#{id} is shipped", tell: method(:told)) { shipped?(id) } }
      ids.each { |id| assert_shipped(id) }
      assert_empty Processes.descendants_but_polls(server.pid)
      wait_until("the shipper ended") { Processes.reap || shippers.empty? }
      status = diagctl!("status", "--json").json.fetch("shipped")
      assert_equal [0, true, false, 0], status.values_at("waiting", "after_capture", "failing", "failures")
      assert_match(/^shipped +nothing waits; last success /, diagctl!("status").out)
      server.stop
    end

    # The one that runs takes what comes meanwhile along.
    def test_no_capture_is_left_behind_and_one_shipper_runs_at_a_time
      most = 0
      watch = Thread.new { loop { most = [most, shippers.count { |process| process.argv.include?("--once") }].max; sleep 0.01 } }
      ids = Array.new(12) { capture(200_000) }
      ids.each { |id| wait_until("#{id} is shipped", tell: method(:told)) { shipped?(id) } }
      watch.kill.join
      assert_operator most, :<=, 1
    end

    # The program that ships, and the one that started it.
    %i[pid ppid].each do |which|
      define_method(:"test_nothing_is_lost_when_the_#{which}_of_the_shipper_is_killed") { kill_and_go_on(which) }
    end

    def test_a_failure_is_told_once_and_the_next_capture_ships_all
      Dir.rmdir(@files)
      ids = [capture]
      wait_until("the failure is told") { events("ship_failed").any? }
      wait_until("the shipper ended") { Processes.reap || shippers.empty? }
      status = diagctl!("status", "--json").json.fetch("shipped")
      assert_equal [1, true], status.values_at("waiting", "failing")
      assert_match(/No such file/, status["failure"])
      ids << capture
      wait_until("it failed again") { diagctl!("status", "--json").json.dig("shipped", "failures") > status["failures"] }
      wait_until("the shipper ended") { Processes.reap || shippers.empty? }
      assert_equal 1, events("ship_failed").size
      Dir.mkdir(@files)
      ids << capture
      ids.each { |id| wait_until("#{id} is shipped", tell: method(:told)) { shipped?(id) } }
      metrics = diagctl!("metrics").out.lines(chomp: true)
      assert_includes metrics, "diagctl_ship_failing 0"
      assert_includes metrics, "diagctl_unshipped_captures 0"
    end

    def test_the_program_that_is_missing_is_a_failure_that_status_tells
      configure(remote: remote_section)
      plain = env(PATH: "/usr/bin:/bin")
      skip("diagctl-remote is beside diagctl") if File.exist?(File.join(File.dirname(E2E::BIN), "diagctl-remote"))
      diagctl!("run", "--report", "out", "--", "echo", "x", env: plain)
      wait_until("the failure is told") { events("ship_failed").any? }
      assert_match(/neither beside diagctl nor in PATH/, events("ship_failed").first["reason"])
    end

    # A sidecar does the work, and no process waits for its lock.
    def test_nothing_waits_beside_a_shipper_that_goes_on
      log = File.join(@root, "ship.log")
      pid = Process.spawn(shipping_env, BIN, "ship", "--watch", %i[out err] => log, unsetenv_others: true)
      watched = -> { diagctl!("status", "--json").json.dig("shipped", "watched") }
      first = capture
      wait_until("it is at work") { watched.call }
      ids = [first] + Array.new(3) { capture }
      ids.each { |id| wait_until("#{id} is shipped") { shipped?(id) } }
      wait_until("nobody waits") { Processes.reap || Processes.descendants.map(&:pid) == [pid] }
      assert watched.call
      Process.kill(:TERM, pid)
    end

    private

    def kill_and_go_on(which)
      configure(remote: "#{remote_section}\nmax_bandwidth = \"256KiB\"")
      first = capture(3 << 20)
      victim = wait_until("the shipper runs", every: 0.002) { shippers.find { |process| process.argv.include?("--once") } }
      Process.kill(:KILL, victim.public_send(which))
      wait_until("both are gone") { Processes.reap || !Processes.alive?(victim.pid) }
      refute shipped?(first)
      configure(remote: remote_section)
      second = capture
      [first, second].each { |id| wait_until("#{id} is shipped", tell: method(:told)) { shipped?(id) } }
      assert_shipped(first)
    end

    def polling_puma
      configure(rule("asked", 'on_demand = { min_interval = "1s" }', %w[gc_stat]), remote: remote_section)
      puma.tap { wait_until("a first poll") { Dir.glob(File.join(@store, "samples", "*")).any? } }
    end

    def request(*reports) = diagctl!("request", *reports, "--reason", "a test", "--wait").out[/\d{8}T\d+Z-\h{8}/]

    def shippers = Processes.descendants.select { |process| process.argv.first.to_s.end_with?("diagctl-remote") || process.binary?("after-capture") }

    def events(name) = diagctl!("events", "--json").json.fetch("events").select { |event| event["event"] == name }

    def told = "#{diagctl('events')}\n#{diagctl('status')}"
  end
end
