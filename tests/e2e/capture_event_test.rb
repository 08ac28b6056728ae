# frozen_string_literal: true

require_relative "support/e2e"

# `Diagctl.capture(event:)`, which a worker killer calls before it ends its worker.
class CaptureEventTest < E2E::Case
  # Another rule holds at every poll, and has never captured while the event's rule has.
  def test_the_answer_is_a_capture_by_the_rule_on_the_event
    configure(rule("always", 'memory_usage = { above = "1MiB" }', ["smaps_rollup"], 'limits = { cooldown = "1s" }') +
              rule("killer", 'event = { name = "worker_memory_limit" }', %w[threads object_counts]))
    script = start_script
    5.times { |i| assert_equal "granted killer", capture(script, "worker_memory_limit", i) }
    rules = wait_until("all captures", tell: script.method(:log)) do
      found = captures.map { |capture| capture.fetch("rule") }
      found if found.count("killer") == 5
    end
    assert_includes rules, "always"
  end

  def test_the_result_names_the_rule_that_refused_or_captured_instead
    configure(rule("always", 'memory_usage = { above = "1MiB" }', ["smaps_rollup"], 'limits = { cooldown = "1h" }') +
              rule("killer", 'event = { name = "full" }', ["threads"], 'limits = { cooldown = "1h" }'))
    script = start_script
    wait_for_captures(script)
    assert_equal ["granted killer", "cooldown killer"], Array.new(2) { |i| capture(script, "full", i) }
    assert_match(/\A(cooldown|idle) always\z/, capture(script, "nobody_watches", 2))
  end

  private

  # Returns the verdict and the rule of the first answer that is not about another capture in progress.
  def capture(script, event, number)
    script.run("r = nil; sleep(0.05) while (r = Diagctl.capture(event: :#{event})).verdict == 'busy'; " \
               "warn('answer #{number}: ' + r.verdict + ' ' + r.rule.to_s)")
    wait_until("an answer", tell: script.method(:log)) { script.log[/^answer #{number}: (.*)$/, 1] }
  end
end
