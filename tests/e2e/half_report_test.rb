# frozen_string_literal: true

require "io/nonblock"
require_relative "support/e2e"

# Half a report is never published as a whole one.
class HalfReportTest < E2E::Case
  # The pipe ends when the dumper is killed. A `put` that has not got far by then has another parent, which lives.
  def test_a_put_that_begins_after_its_dumper_has_died_stores_nothing
    dumper = granted("gc_stat", "heap_dump")
    assert dumper.put("gc_stat", "{}").ok?
    ended, still_open = IO.pipe
    gate, open_gate = IO.pipe
    input, pipe = IO.pipe
    [gate, input].each { |io| io.nonblock = false }
    late = ["sh", "-c", 'sh -c "echo begun; read line <&8; exec 8<&-; exec \"\$@\"" late "$@" <&7 & wait', "dumper",
            E2E::BIN, "--dir", @store, "put", dumper.capture, "heap_dump", "--lease-fd", "9"]
    pid = Process.spawn(env, *late, pgroup: true, 7 => input, 8 => gate, 9 => dumper.lease, %i[out err] => still_open, unsetenv_others: true)
    [input, gate, still_open].each(&:close)
    assert_equal "begun\n", ended.gets
    identity = { pid: pid, start_ticks: Integer(File.read("/proc/#{pid}/stat").rpartition(") ").last.split[19]), boot_id: File.read("/proc/sys/kernel/random/boot_id").chomp,
                 pid_ns: Integer(File.readlink("/proc/self/ns/pid")[/\d+/]) }
    File.write(File.join(dumper.staging, ".holder-#{pid}.json"), JSON.generate(identity), perm: 0o600)
    pipe.write("{\"type\":\"ROOT\"}\n" * 10)
    E2E::Processes.signal(:KILL, pid)
    Process.wait(pid)
    pipe.close
    open_gate.puts
    assert_match(/report heap_dump.*its producer died before the end of the report/, ended.read)
    result = dumper.finalize
    assert_equal 5, result.status, result
    assert_equal [nil, "it was not delivered"], result.json.fetch("reports").map { |report| report["error"] }
    assert_equal %w[gc_stat.json.gz meta.json], Dir.children("#{@store}/reports/#{dumper.capture}").sort
  end
end
