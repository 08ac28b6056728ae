# frozen_string_literal: true

require_relative "support/torture"

# Reports that were finished before a dump broke off are published, and the rest is named with its error.
class BrokenOffTest < Torture::Case
  # The dumper waits in the last of three reports: two are whole by then.
  HANG = 'Diagctl::Reports::HeapDump.prepend(Module.new { def call(io, *) = io.write("{}\n" * 1000) && sleep })'
  def test_a_dumper_that_is_killed_leaves_what_is_whole_and_its_error
    { "SIGKILL" => /its dumper was killed by SIGKILL after [\d.]+ s/, "SIGTERM" => /its dumper was killed by SIGTERM after [\d.]+ s/ }.each do |signal, error|
      assert_broken_off(HANG, error) { |dumper| E2E::Processes.signal(signal.delete_prefix("SIG").to_sym, dumper) }
    end
  end

  def test_a_dumper_at_its_deadline_leaves_what_is_whole
    configure(guards: "min_free_disk = \"1%\"\nmemory_headroom = 0.1\ndeadline = \"4s\"")
    assert_broken_off(HANG, /was not finished within 4 s \(guards\.deadline\)/) { nil }
  end

  # Both are killed at once, and nobody is left to say how. The next grant publishes.
  def test_a_dumper_that_is_killed_with_its_worker_leaves_what_is_whole_to_the_next_grant
    assert_broken_off(HANG, /its dumper ended without publishing it/, store_capture: true) do |dumper, script|
      E2E::Processes.signal(:KILL, script, dumper, *E2E::Processes.descendants(dumper).map(&:pid))
      wait_until("the lease is free") { !diagctl!("status", "--json").json.dig("lease", "taken") }
    end
  end

  # The kernel's OOM killer kills the `put` alone: the dump gets EPIPE, and the others go on.
  def test_a_put_that_is_killed_costs_its_report_only
    code = 'Diagctl::Reports::HeapDump.prepend(Module.new { def call(io, *) = loop { io.write("{}\n"); sleep 0.01 } })'
    assert_broken_off(code, /`diagctl put` was killed by SIGKILL/) do |dumper|
      put = wait_until("its put") { E2E::Processes.descendants(dumper).find { |process| process.argv.include?("heap_dump") } }
      E2E::Processes.signal(:KILL, put.pid)
    end
  end

  def test_a_worker_that_is_terminated_in_a_capture_without_a_snapshot_leaves_what_is_whole
    code = 'Diagctl.configure { |c| c.report(:slow) { |_| sleep 2 } }'
    head = "[reports.slow]\nproducer = \"application\"\n"
    File.write(config_path, "#{File.read(config_path)}\n#{head}")
    script = start(code)
    diagctl!("request", "smaps_rollup", "gc_stat", "slow", "--reason", "it ends")
    wait_until("it is staged") { Dir[File.join(@store, "staging/*/.smaps_rollup.report.json")].first }
    sleep 0.5
    E2E::Processes.signal(:TERM, script.pid)
    meta = wait_until("it is published", tell: script.method(:log)) { captures.first&.then { |capture| meta(capture["id"]) } }
    errors = meta["reports"].to_h { |report| [report["name"], report["error"]] }
    assert_nil errors["smaps_rollup"]
    assert_match(/was ended during the capture/, errors["slow"])
    assert_nothing_staged
  end

  # The size limit of the process (RLIMIT_FSIZE): once a signal that ended `put` and `finalize` without a word.
  def test_a_file_size_limit_is_an_error_with_a_reason
    dumper = granted("gc_stat", "heap_dump")
    assert dumper.put("gc_stat", "{}").ok?
    put = limited(dumper, 4096, "put", dumper.capture, "heap_dump", stdin: E2E.dump(Random.bytes(100_000)))
    assert_equal 1, put.status, put
    assert_match(/File too large|file size/i, put.err)
    # A record needs more than the limit, too. A second attempt finds what the first left.
    finalize = limited(dumper, 64, "finalize", dumper.capture)
    refute_equal(-25, finalize.status, finalize)
    refute finalize.ok?
    assert_match(/too large/i, finalize.err)
    refute captures.any? { |capture| capture["reports"].any? { |report| report["name"].start_with?("file_meta") } }
  end

  private

  def limited(dumper, bytes, *argv, stdin: "")
    command = ["prlimit", "--fsize=#{bytes}", E2E::BIN, "--dir", @store, *argv, "--lease-fd", dumper.lease.fileno.to_s]
    E2E::Command.run(*command, env: env, stdin: stdin, dumper.lease.fileno => dumper.lease.fileno)
  end

  def start(code)
    File.write(File.join(@root, "hang.rb"), "require \"diagctl\"\nDiagctl::Runtime.load\n#{code}\n")
    script = E2E::Script.new(@root, env(RUBYOPT: "-r#{@root}/hang.rb", RUBYLIB: E2E::PumaServer::LOAD_PATH))
    wait_until("it polls", tell: script.method(:log)) { File.exist?(File.join(@store, "FORMAT")) }
    script
  end

  def assert_broken_off(code, error, store_capture: false)
    before = File.exist?(File.join(@store, "FORMAT")) ? captures.map { |capture| capture["id"] } : []
    script = start(code)
    diagctl!("request", "gc_stat", "object_counts", "heap_dump", "--reason", "it breaks off")
    staging = wait_until("the heap dump has begun", deadline: 60, tell: script.method(:log)) { Dir[File.join(@store, "staging/*/.heap_dump.claim")].first }
    dumper = E2E::Processes.descendants(script.pid).find(&:dumper?)
    yield dumper.pid, script.pid
    self.store_capture if store_capture
    id = File.basename(File.dirname(staging))
    wait_until("it is published", deadline: 60, tell: script.method(:log)) { File.exist?(File.join(@store, "reports", id, "meta.json")) }
    errors = meta(id)["reports"].to_h { |report| [report["name"], report["error"]] }
    assert_equal [nil, nil], errors.values_at("gc_stat", "object_counts")
    assert_match(error, errors["heap_dump"])
    refute_includes before, id
  ensure
    E2E::Processes.signal(:KILL, script.pid) if script
  end
end
