# frozen_string_literal: true

require_relative "support/e2e"

# Puma serves, whatever the binary does, and the log reports the problem once.
class BrokenBinaryTest < E2E::Case
  # Quick retries, so that the second and the third failure occur during the test. They must not be logged again.
  QUICK_RETRIES = "Diagctl.configure { |c| c.acquire_timeout = 2; c.backoff = 0.5 }"

  FAKES = {
    "hangs" => "trap '' TERM\nexec sleep 1000",
    "prints garbage" => "echo '{{{ this is no answer'",
    "prints without end" => "exec yes '{\"schema\":1'",
    "prints JSON of another kind" => "echo '[1, 2]'",
    "says granted and nothing else" => "echo '{\"schema\":1,\"verdict\":\"granted\"}'",
    "prints nothing" => "exit 0",
    "dies by a signal" => "kill -SEGV $$",
    "exits with an unknown status" => "echo '{}'; echo boom >&2; exit 77"
  }.freeze

  FAKES.each do |what, script|
    define_method("test_binary_that_#{what.tr(' ', '_')}") { assert_serves_and_logs_once(fake(script)) }
  end

  def test_missing_binary = assert_serves_and_logs_once(File.join(@root, "nowhere"))

  def test_binary_that_cannot_be_executed
    path = fake("exit 0")
    File.chmod(0o644, path)
    assert_serves_and_logs_once(path)
  end

  def test_missing_binary_in_a_cluster_costs_at_most_one_line_per_process
    server = puma(env: env(DIAGCTL_BIN: File.join(@root, "nowhere")), workers: 2)
    wait_until("a log line") { server.diagctl_lines.any? }
    assert_operator server.diagctl_lines.size, :<=, 3, server.log
  end

  def test_binary_that_hangs_leaves_nothing_behind_in_a_cluster
    server = puma(env: env(DIAGCTL_BIN: fake(FAKES.fetch("hangs"))), workers: 2)
    hanging = -> { E2E::Processes.descendants.count { |process| process.argv.first == "sleep" } }
    wait_until("both workers poll", tell: server.method(:log)) { hanging.call == 2 }
    server.stop
    skip "Puma hung in its own stop (puma#3677), and its worker was killed" if server.killed
    wait_until("nothing is left running", tell: -> { E2E::Processes.descendants.inspect }) { E2E::Processes.descendants.empty? }
  end

  private

  def fake(script)
    path = File.join(@root, "fake-diagctl")
    File.write(path, "#!/bin/sh\n#{script}\n")
    File.chmod(0o755, path)
    path
  end

  def assert_serves_and_logs_once(binary)
    server = puma(env: env(DIAGCTL_BIN: binary), initializer: QUICK_RETRIES)
    traffic = E2E::Traffic.new(server, clients: 1)
    wait_until("a log line", tell: server.method(:log)) { server.diagctl_lines.any? }
    sleep 2
    assert_equal 0, traffic.stop.failed
    assert_equal 1, server.diagctl_lines.size, server.log
    assert_operator server.diagctl_lines.first.size, :<, 500
    server.stop(deadline: 20)
    wait_until("nothing is left running", deadline: 20) { E2E::Processes.descendants.empty? }
  end
end
