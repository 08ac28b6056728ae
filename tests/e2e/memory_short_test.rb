# frozen_string_literal: true

require_relative "support/e2e"

# Memory runs short during a dump: the dump is given up, the worker survives, and log and status give the reason.
class MemoryShortTest < E2E::Case
  LIMIT = 320

  def test_a_dump_is_given_up_before_the_limit_of_the_cgroup_is_reached
    cgroup = memory_cgroup(LIMIT << 20)
    configure(rule("asked", "on_demand = {}", ["heap_dump"]))
    script = start_script(wrapper: cgroup.enter)
    diagctl!("request", "heap_dump", "--reason", "memory will run short")
    during_a_dump do |dumper, put|
      # When a worker writes, its child keeps the old pages and the worker gets new ones. Here the worker simply grows. It grows
      # no faster than a busy kernel can end the killed processes; otherwise it would reach the limit after all.
      script.run("$kept = []; ($kept << 'x' * (8 << 20); sleep 0.2) while Diagctl.capture.reason.include?('is still running') && $kept.size < 60")
      wait_until("the dump is given up", tell: script.method(:log)) { !E2E::Processes.alive?(dumper) && !E2E::Processes.alive?(put) }
    end
    given_up = /was killed: memory ran short: cgroup \S+ has [\d.]+ MiB free, and a dump needs 32.0 MiB/
    wait_until("the log says so", tell: script.method(:log)) { script.log.match?(given_up) }
    assert E2E::Processes.alive?(script.pid), "the worker is to live"
    explained = wait_until("status says so") do
      text = diagctl!("status", "--explain").out
      text if text.match?(given_up)
    end
    assert_match(/aborted +\d{8}T/, explained)
    refute_match(/was not finished/, explained)
    assert_empty captures
  ensure
    E2E::Processes.sweep
    cgroup&.remove
  end
end
