# frozen_string_literal: true

module E2E
  # A person who asks machines through the remote, and a machine that obeys.
  module Asking
    ALLOW = "[remote.requests]\nallow_reports = [\"gc_stat\", \"heap_summary\"]\nallow_requesters = [\"r*\"]\npoll = \"1s\"\n"

    def setup
      super
      @pids = []
    end

    def teardown
      @pids.each { |pid| Process.kill(:TERM, pid) && Process.wait(pid) }
      super
    end

    # A shipper of this machine that goes on.
    def watch(env = shipping_env)
      log = File.join(@root, "ship-#{@pids.size}.log")
      @pids << spawn(env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      wait_until("an announcement", tell: -> { File.read(log) }) { remote_keys.grep(%r{nodes/}).size >= @pids.size }
      log
    end

    def compact(later = 0) = (Time.now + later).utc.strftime("%Y%m%dT%H%M%S%LZ")

    def ask(*argv, **options)
      diagctl("request", *argv, "--remote", "--reason", "a test", "--wait", env: elsewhere, deadline: 90, **options)
    end
  end
end
