# frozen_string_literal: true

require_relative "support/e2e"

# When a container has used up its CPU limit, it stops, and its requests with it. A dump must not use up the limit.
class CpuLimitTest < E2E::Case
  def test_a_dump_leaves_a_cpu_limit_unexhausted
    cgroup = cpu_cgroup(50)
    configure(rule("asked", "on_demand = {}", ["heap_dump"]))
    script = start_script(wrapper: cgroup.enter)
    grown = File.join(@root, "grown")
    script.run("$kept = Array.new(4_000_000) { |i| [i.to_s] }; File.write(#{grown.inspect}, '')")
    wait_until("the heap has grown", tell: script.method(:log)) { File.exist?(grown) }
    before = counters(cgroup)
    diagctl!("request", "heap_dump", "--reason", "within the limit", "--wait")
    periods, throttled = counters(cgroup).zip(before).map { |now, was| now - was }
    assert_operator periods, :>, 10, "the dump was to use the CPU for some time"
    # The dump starts with a fork, and starts programs at its beginning and end.
    assert_operator throttled, :<, periods / 2, "the limit was used up in #{throttled} of #{periods} periods"
  ensure
    E2E::Processes.sweep
    cgroup&.remove
  end

  private

  def counters(cgroup) = %w[nr_periods nr_throttled].map { |key| cgroup["cpu.stat"][/^#{key} (\d+)/, 1].to_i }
end
