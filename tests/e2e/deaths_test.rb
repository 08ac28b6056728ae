# frozen_string_literal: true

require_relative "support/e2e"

# `diagctl deaths` after a worker of a real Puma was killed.
class DeathsTest < E2E::Case
  def test_a_killed_worker_is_listed_with_its_captures_and_those_that_serve_are_not
    server = puma(workers: 2)
    victim, survivor = server.workers
    wait_until("both workers to poll", tell: server.method(:log)) { ([victim, survivor] - polled).empty? }
    diagctl!("request", "gc_stat", "--pid", victim.to_s, "--reason", "before it dies", "--wait")
    capture = captures.first.fetch("id")
    assert_empty deaths
    E2E::Processes.signal(:KILL, victim)
    wait_until("the death") { deaths.any? }
    # Puma starts another worker in its place, which is alive.
    wait_until("a new worker", tell: server.method(:log)) { (polled - [victim, survivor]).any? }
    death = deaths.first
    assert_equal [[victim], "puma"], [deaths.map { |one| one["pid"] }, death["role"]]
    assert_equal [[capture], false], death.values_at("captures", "polls").then { |ids, polls| [ids, polls.empty?] }
    assert_operator death["rss_bytes"], :>, 1 << 20
    assert_includes ["not oom_kill", "unknown"], death["ended"]
    assert_match(/\s#{victim}\s+puma/, diagctl!("deaths", "--since", "10m").out)
  end

  private

  def polled
    file = File.join(@store, "samples.jsonl")
    File.exist?(file) ? File.readlines(file).map { |line| JSON.parse(line)["pid"] }.uniq : []
  end

  def deaths = diagctl!("deaths", "--json").json.fetch("deaths")
end
