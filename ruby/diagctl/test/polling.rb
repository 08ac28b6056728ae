# frozen_string_literal: true

require_relative "helper"

# A poll thread with a script in place of the diagctl program.
module Polling
  include Sandbox

  # Seconds. A poll within this time was brought forward, because `retry_after` of IDLE is 30 s.
  WOKEN = 20

  def start(path, client: true)
    @agent = agent(path)
    @agent.instance_variable_set(:@client, nil) unless client
    @poller = Diagctl::Poller.new(@agent, config: @config, log: @log)
    @poller.start
  end

  def with_dir(dir)
    before = ENV.fetch("DIAGCTL_DIR", nil)
    ENV["DIAGCTL_DIR"] = dir
    yield
  ensure
    ENV["DIAGCTL_DIR"] = before
  end

  # The first polls follow each other quickly, because they cannot tell yet whether requests/ has changed.
  def settled_polls
    eventually("no poll for half a second") do
      before = calls.size
      sleep 0.5
      before if before.positive? && before == calls.size
    end
  end
end
