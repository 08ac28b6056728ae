# frozen_string_literal: true

require_relative "support/torture"

# A diagctl that misbehaves at work, in each of its parts. Puma loses no request, logs little, and captures again once diagctl
# is repaired. (For one that never works, see tests/e2e/broken_binary_test.rb.)
class HostTest < Torture::Case
  QUICK = "Diagctl.configure { |c| c.acquire_timeout = 2; c.backoff = 0.5 }"

  WAYS = {
    "hangs" => "trap '' TERM; exec sleep 1000",
    "crashes" => "kill -SEGV $$",
    "is_killed" => "kill -KILL $$",
    "fails" => "echo 'diagctl: no' >&2; exit 1",
    "is_gone" => "exec /nowhere/diagctl",
    "ends_with_an_unknown_status" => "exit 77",
    "says_nothing_and_succeeds" => "exit 0",
    "prints_garbage" => "echo '{{{'; exit 0",
    "prints_a_huge_answer" => "head -c 50000000 /dev/zero | tr '\\0' x; exit 0",
    "prints_without_end_on_stderr" => "exec yes no >&2",
    "closes_its_pipes" => "exec 0<&- 1>&- 2>&-; exec sleep 1000",
    "is_slow" => "sleep 1",
    "forks_a_child_that_stays" => "sleep 1000 &"
  }.freeze
  PARTS = %w[acquire put finalize].freeze

  Torture.sample(PARTS.product(WAYS.to_a), 5).each do |part, (way, script)|
    define_method(:"test_#{part}_that_#{way}") { assert_survives(part, script) }
  end

  private

  def assert_survives(part, script)
    configure(guards: "min_free_disk = \"1%\"\nmemory_headroom = 0.1\ndeadline = \"15s\"")
    broken = wrap(part, script)
    server = puma(env: env(DIAGCTL_BIN: broken), workers: 2, initializer: QUICK)
    traffic = E2E::Traffic.new(server)
    wait_until("#{part} misbehaves", deadline: 90, every: 0.3, tell: server.method(:log)) { ask.then { File.exist?(File.join(@root, "misbehaved")) } }
    served = traffic.served
    wait_until("clients are served", tell: server.method(:log)) { traffic.served > served + 50 }

    File.delete(File.join(@root, "broken"))
    wait_until("it captures again", deadline: 90, every: 0.3, tell: -> { "#{server.log}\n#{diagctl('status', '--explain')}" }) { again? }
    assert_equal 0, traffic.stop.failed, server.log
    assert_operator server.diagctl_lines.size, :<=, 12, server.log
    assert_operator server.log.bytesize, :<, 20_000, "the log was flooded"
    server.stop(deadline: 30)
    wait_until("nothing is left running", deadline: 30) { left.empty? }
  end

  # Keeps one request pending. A request is given up after several attempts.
  def ask
    waiting = File.join(@store, "requests")
    diagctl!("request", "gc_stat", "object_counts", "--reason", "a test") unless Dir.exist?(waiting) && !Dir.empty?(waiting)
  end

  def again?
    ask
    captures.any? { |capture| capture.fetch("reports").all? { |report| report["error"].nil? } }
  end

  # Returns the leftover processes, except those of the broken diagctl itself.
  def left = E2E::Processes.descendants.reject { |process| process.argv == %w[sleep 1000] }

  # Wraps the real program so that one part of it misbehaves while the file `broken` exists.
  def wrap(part, script)
    path = File.join(@root, "diagctl")
    File.write(File.join(@root, "broken"), "")
    File.write(path, <<~SH)
      #!/bin/sh
      if [ -e #{@root}/broken ]; then
        case " $* " in *" #{part} "*) : > #{@root}/misbehaved; #{script} ;; esac
      fi
      exec #{E2E::BIN} "$@"
    SH
    File.chmod(0o755, path)
    path
  end
end
