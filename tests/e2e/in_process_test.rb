# frozen_string_literal: true

require_relative "support/e2e"

# `snapshot = "in_process"`: for processes in which a fork is unwise. The worker itself dumps, into a pipe.
class InProcessTest < E2E::Case
  def test_the_worker_dumps_itself_and_forks_nothing
    configure(rule("by-itself", "on_demand = {}", %w[gc_stat heap_dump], 'snapshot = "in_process"'))
    script = start_script
    script.run("KEPT = Array.new(100_000) { |i| i.to_s * 10 }")
    diagctl!("request", "--reason", "no fork, please")
    during_a_dump do |dumper, _|
      assert_equal script.pid, dumper
      assert_empty E2E::Processes.descendants(script.pid).select(&:dumper?)
    end
    id = wait_for_captures(script).first.fetch("id")
    assert_heap_dump(id, strings: 100_000)
    cost = meta(id).fetch("cost")
    refute_includes cost, "fork_ms"
    refute_includes cost, "copied_bytes"
    assert E2E::Processes.alive?(script.pid)
  end
end
