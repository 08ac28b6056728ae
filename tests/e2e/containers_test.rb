# frozen_string_literal: true

require_relative "support/e2e"

# Two containers that share a store. Each has a pid namespace, so the process in each of them is process 1.
class ContainersTest < E2E::Case
  CONTAINER = %w[unshare --pid --fork --kill-child --mount-proc].freeze

  def setup
    super
    skip "no pid namespace can be made here" unless system(*CONTAINER, "true", %i[out err] => File::NULL)
  end

  def test_a_rule_fires_in_each_of_two_processes_with_the_same_pid
    # A rule with several levels fires once a level and process.
    configure(rule("grown", 'memory_usage = { above = ["1MiB", "1TiB"] }', ["smaps_rollup"], 'for = "4s"'))
    scripts = start_containers("left", "right")
    found = wait_until("a capture of each", tell: -> { told(scripts) }) { captures.then { |all| all if all.size >= 2 } }
    metas = found.map { |capture| meta(capture.fetch("id")) }
    assert_equal %w[left right], metas.map { |meta| meta["role"] }.sort
    assert_equal [1, 1], metas.map { |meta| meta["pid"] }
    assert_equal 2, metas.map { |meta| meta["pid_ns"] }.uniq.size
    polls = scripts.keys.to_h { |role| [role, polled(role)] }
    wait_until("more polls", tell: -> { told(scripts) }) { polls.all? { |role, before| polled(role) >= before + 5 } }
    assert_equal 2, captures.size, "each level fires once a process"
  end

  def test_status_and_request_tell_two_processes_with_the_same_pid_apart
    configure
    scripts = start_containers("left", "right")
    rows = diagctl!("status", "--json").json.fetch("processes")
    assert_equal [["left", 1, false], ["right", 1, false]], rows.map { |row| row.values_at("role", "pid", "gone") }.sort
    assert_equal 2, rows.map { |row| row["pid_ns"] }.uniq.size

    ambiguous = diagctl("request", "smaps_rollup", "--pid", 1, "--reason", "which?")
    assert_equal 4, ambiguous.status, ambiguous
    assert_match(/2 processes in different containers/, ambiguous.err)
    # The host sees them under other pids.
    here = rows.to_h { |row| row.values_at("role", "pid_here") }
    skip "only root sees the processes of a container" if here.values.any?(&:nil?)
    assert(here.values.all? { |pid| E2E::Processes.alive?(pid) })
    id = diagctl!("request", "smaps_rollup", "--pid", here.fetch("right"), "--reason", "this one", "--wait").out.strip
    assert_equal "right", meta(id).fetch("role")
    assert_equal scripts.size, diagctl!("doctor", "--json").json.fetch("checks").find { |check| check["id"] == "processes.polling" }.dig("observed", "alive")
  end

  private

  def start_containers(*roles)
    scripts = roles.to_h do |role|
      dir = File.join(@root, role)
      Dir.mkdir(dir)
      [role, E2E::Script.new(dir, env, wrapper: CONTAINER, role: role)]
    end
    wait_until("a first poll of each", tell: -> { told(scripts) }) { roles.all? { |role| polled(role) >= 1 } }
    scripts
  end

  # Returns how often a process has polled, from the history.
  def polled(role)
    path = File.join(@store, "samples.jsonl")
    File.exist?(path) ? File.foreach(path).count { |line| line.include?(%("role":"#{role}")) } : 0
  end

  def told(scripts) = "#{scripts.values.map(&:log).join}\n#{diagctl('status', '--explain')}"
end
