# frozen_string_literal: true

require_relative "support/e2e"

# A person at a shell asks a running Puma for a capture.
class RequestTest < E2E::Case
  def test_wait_returns_when_the_capture_is_published
    server = puma(workers: 2)
    result = diagctl!("request", "heap_dump", "threads", "--reason", "memory looks odd", "--wait")
    found = captures
    assert_equal 1, found.size
    id = found.first.fetch("id")
    assert_includes result.out, id
    assert_equal "on_demand", meta(id).fetch("rule")
    assert_includes meta(id).to_json, "memory looks odd"
    assert_equal %w[heap_dump heap_summary threads], meta(id).fetch("reports").map { |report| report["name"] }.sort
    assert_heap_dump(id, strings: 1000)
    server.stop
  end

  # Readers differ in which value of a repeated key they use, and some reject the document.
  def test_json_has_no_duplicate_keys
    out = diagctl!("request", "gc_stat", "--reason", "a test", "--json").out
    assert_equal 1, out.scan('"schema"').size, out
  end

  def test_a_request_for_one_pid_is_answered_by_that_process
    server = puma(workers: 2)
    server.workers.each do |pid|
      diagctl!("request", "gc_stat", "--pid", pid, "--reason", "this one", "--wait")
      assert_equal pid, meta(captures.first.fetch("id")).fetch("pid")
    end
  end

  def test_worker_keeps_serving_while_its_dump_is_blocked
    server = puma
    server.get("/grow?mb=60")
    diagctl!("request", "heap_dump", "--reason", "slow disk")
    during_a_dump do
      10.times { assert_match(/\Aok/, server.get("/", timeout: 5)) }
    end
    wait_for_captures(server)
  end

  # The request arrives after `acquire` has checked and before the plugin goes to sleep.
  def test_request_that_arrives_as_the_first_poll_ends_is_not_missed
    slow = File.join(@root, "slow-diagctl")
    File.write(slow, "#!/bin/sh\n#{E2E::BIN} \"$@\"\nstatus=$?\ncase \"$*\" in *acquire*) sleep 1 ;; esac\nexit $status\n")
    File.chmod(0o755, slow)
    server = polling_puma(env: env(DIAGCTL_BIN: slow))
    diagctl!("request", "gc_stat", "--reason", "just then")
    wait_for_captures(server, deadline: 10)
  end

  def test_pause_and_resume
    server = polling_puma
    diagctl!("pause")
    diagctl!("request", "gc_stat", "--reason", "while paused")
    wait_until("a poll met the pause") { diagctl!("status", "--json").json.fetch("processes").first["verdict"] == "disabled" }
    assert_empty captures
    diagctl!("resume")
    wait_for_captures(server)
  end

  def test_pause_for_a_while_ends_by_itself
    server = polling_puma
    diagctl!("pause", "--for", "3s")
    started = E2E.clock
    diagctl!("request", "gc_stat", "--reason", "while paused", "--wait", deadline: 60)
    assert_operator E2E.clock - started, :>, 2
    assert_equal 1, captures.size
    server.stop
  end

  # Ctrl-C reaches diagctl while it waits. The status is that of a program that the signal ended.
  def test_an_interrupted_wait_cancels_the_request
    polling_puma
    diagctl!("pause")
    reader, writer = IO.pipe
    argv = [E2E::BIN, "request", "gc_stat", "--reason", "never mind", "--wait"]
    pid = Process.spawn(env, *argv, out: File::NULL, err: writer, unsetenv_others: true)
    writer.close
    wait_until("it waits") { requests.any? }
    Process.kill(:INT, pid)
    assert_equal Signal.list.fetch("INT"), Process.wait2(pid).last.termsig
    assert_match(/waits: the store is paused.*was cancelled/m, reader.read)
    assert_empty requests
    assert_includes diagctl!("events").out, "cancelled by"
  end

  def test_requests_are_listed_with_what_they_wait_for_and_cancelled
    server = polling_puma
    server.stop
    diagctl!("request", "gc_stat", "--name", "nobody", "--reason", "one")
    id = diagctl!("request", "threads", "--reason", "two").out.strip
    assert_equal %w[one two], requests.map { |request| request["reason"] }
    assert_match(/no matching process/, requests.first.fetch("waits_for"))
    diagctl!("request", "--cancel", id)
    assert_equal ["one"], requests.map { |request| request["reason"] }
  end

  # A process that has ended has no say.
  def test_the_verdict_of_a_dead_process_is_not_repeated
    server = polling_puma
    diagctl!("pause")
    wait_until("a poll met the pause") { diagctl!("status", "--json").json.fetch("processes").first["verdict"] == "disabled" }
    E2E::Processes.signal(:KILL, server.pid)
    diagctl!("resume")
    wait_until("it is gone") { diagctl!("status", "--json").json.fetch("processes").all? { |process| process["gone"] } }
    result = diagctl("request", "gc_stat", "--reason", "now", "--wait", "--expires", "500ms")
    assert_equal 10, result.status, result
    assert_match(/no matching process has polled/, result.err)
    refute_match(/disabled|paused|DIAGCTL_ENABLED/, result.err)
  end

  def test_a_wait_ends_when_the_store_is_moved
    polling_puma
    diagctl!("pause")
    waiter = Thread.new { diagctl("request", "gc_stat", "--reason", "in the old place", "--wait") }
    wait_until("it waits") { requests.any? }
    FileUtils.mv(@store, "#{@store}.old")
    result = waiter.value
    assert_equal 1, result.status, result
    assert_match(/was moved, removed or replaced/, result.err)
  end

  def test_min_interval_of_the_on_demand_rule_holds_a_request_back_and_says_so
    configure(rule("asked", 'on_demand = { min_interval = "2s" }', ["gc_stat"]))
    polling_puma
    diagctl!("request", "gc_stat", "--reason", "one", "--wait")
    result = diagctl!("request", "gc_stat", "--reason", "two", "--wait")
    assert_match(/waiting: .*cooldown.*min_interval 2s/, result.err)
    assert_equal 2, captures.size
  end

  def test_request_without_a_matching_process_ends_with_a_clear_message
    result = diagctl("request", "gc_stat", "--reason", "no one is there", "--wait", "--expires", "1s")
    assert_equal 10, result.status, result
    assert_match(/no matching process/, result.err)
    assert_empty result.out
  end

  private

  def requests = diagctl!("request", "--list", "--json").json.fetch("requests")

  # Returns a Puma whose first poll has created the store.
  def polling_puma(**options)
    puma(**options).tap { wait_until("the first poll") { Dir.exist?(File.join(@store, "samples")) && !Dir.empty?(File.join(@store, "samples")) } }
  end
end
