# frozen_string_literal: true

require "socket"
require_relative "support/s3_case"

module E2E
  # A network that is dead without a word: connections are accepted, and nothing is ever answered.
  class StallTest < S3Case
    def setup
      super
      @hole = TCPServer.new("127.0.0.1", 0)
      @pids = []
    end

    def teardown
      @pids.each { |pid| Process.kill(:KILL, pid) && Process.wait(pid) }
      @hole.close
      super
    end

    def test_a_shipment_after_a_capture_ends_and_the_next_one_resumes
      dead(ship: "after_capture", stall_timeout: "2s")
      first = capture(env: shipping_env)
      wait_until("it is given up", tell: method(:told)) { events("ship_failed").any? }
      assert_match(/gave up: the remote confirmed nothing for 2s/, events("ship_failed").first["reason"])
      wait_until("no shipper is left") { Processes.reap || shippers.empty? }
      status = diagctl!("status", "--json").json.fetch("shipped")
      assert_equal [1, true], status.values_at("waiting", "failing")
      assert_match(/gave up/, status["failure"])
      alive(ship: "after_capture", stall_timeout: "2s")
      second = capture(env: shipping_env)
      [first, second].each { |id| wait_until("#{id} is shipped", tell: method(:told)) { shipped?(id) } }
      [first, second].each { |id| assert_shipped(id) }
    end

    # 6 MiB at 1 MiB a second, one part of 5 MiB and one of 1: no longer without a sign of life than it may be.
    def test_a_slow_shipment_that_goes_on_is_left_alone
      alive(ship: "after_capture", stall_timeout: "3s", max_bandwidth: "1MiB")
      id = capture(6 << 20, env: shipping_env)
      wait_until("it is shipped", tell: method(:told)) { shipped?(id) }
      assert_empty events("ship_failed")
    end

    def test_a_second_shipper_says_for_whom_it_waits_and_not_for_ever
      dead
      capture
      pid = watch
      result = ship("--wait", "2s", deadline: 60)
      assert_equal 1, result.status, result
      assert_includes result.err, "waiting for the shipper with pid #{pid}, which ships the captures of this store"
      assert_match(/the shipper with pid #{pid} is still at work on this store after 2s; 1 capture waits/, result.err)
      assert_match(/hint: `diagctl status`/, result.err)
    end

    def test_beside_a_shipper_that_goes_on_it_ends_as_soon_as_that_has_done_the_work
      alive(max_bandwidth: "1MiB")
      id = capture(3 << 20)
      pid = watch
      result = ship(deadline: 60)
      assert result.ok?, result
      assert_includes result.out, "nothing to ship: the shipper with pid #{pid} has shipped everything"
      assert shipped?(id)
    end

    private

    def dead(**more) = remote(endpoint: "http://127.0.0.1:#{@hole.addr[1]}", **more)

    def alive(**more) = remote(**more)

    def capture(bytes = 1000, env: self.env)
      diagctl!("run", "--", "sh", "-c", "head -c #{bytes} /dev/urandom > $DIAGCTL_CAPTURE_DIR/blob", env: env, deadline: 300).out.chomp
    end

    def watch
      log = File.join(@root, "ship.log")
      @pids << spawn(shipping_env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      wait_until("it is at work", tell: -> { File.read(log) }) { diagctl!("status", "--json").json.dig("shipped", "watched") }
      @pids.last
    end

    def shippers = Processes.descendants.select { |process| process.argv.first.to_s.end_with?("diagctl-remote") || process.binary?("after-capture") }

    def events(name) = diagctl!("events", "--json").json.fetch("events").select { |event| event["event"] == name }

    def told = "#{diagctl("events")}\n#{diagctl("status")}"
  end
end
