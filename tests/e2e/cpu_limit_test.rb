# frozen_string_literal: true

require_relative "support/e2e"

# A container with a CPU limit stands still when that is used up, its requests with it: a dump must not use it up.
class CpuLimitTest < E2E::Case
  def test_a_dump_leaves_a_cpu_limit_unexhausted
    cgroup = cpu_cgroup(50)
    configure(rule("asked", "on_demand = {}", ["heap_dump"]))
    script = start_script(wrapper: cgroup.enter)
    grown = File.join(@root, "grown")
    script.run("$kept = Array.new(600_000) { |i| [i.to_s] }; File.write(#{grown.inspect}, '')")
    wait_until("the heap has grown", tell: script.method(:log)) { File.exist?(grown) }
    before = counters(cgroup)
    diagctl!("request", "heap_dump", "--reason", "within the limit", "--wait")
    periods, throttled = counters(cgroup).zip(before).map { |now, was| now - was }
    assert_operator periods, :>, 10, "the dump was to use the CPU for some time"
    # At its beginning and its end there is a fork, and programs that start.
    assert_operator throttled, :<, periods / 2, "the limit was used up in #{throttled} of #{periods} periods"
  ensure
    E2E::Processes.sweep
    cgroup&.remove
  end

  private

  def counters(cgroup) = %w[nr_periods nr_throttled].map { |key| cgroup["cpu.stat"][/^#{key} (\d+)/, 1].to_i }
end
