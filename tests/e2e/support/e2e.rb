# frozen_string_literal: true

require "fileutils"
require "minitest/autorun"
require "tmpdir"
require_relative "wait"

Encoding.default_external = Encoding::UTF_8 # even if no locale is set

module E2E
  ROOT = File.expand_path("../../..", __dir__)
  BIN = ENV.fetch("DIAGCTL_TEST_BIN", File.join(ROOT, "target/release/diagctl"))
  abort "no binary at #{BIN}; run make build" unless File.executable?(BIN)
end

require_relative "processes"
require_relative "command"
require_relative "puma_server"
require_relative "bundles"
require_relative "redis"
require_relative "sidekiq_server"
require_relative "witness"
require_relative "traffic"
require_relative "lease_holder"
require_relative "script"
require_relative "memory_program"
require_relative "cgroup"
require_relative "case"

# Under nohup, or in the background of a script, every program that a test starts would inherit the ignored signals.
%w[HUP INT QUIT].each { |signal| Signal.trap(signal, "DEFAULT") }
E2E::Processes.become_subreaper
# Runs even if the run is interrupted. Forked helpers of a test leave with exit!.
Minitest.after_run { E2E::Processes.sweep }
