# frozen_string_literal: true

require_relative "support/e2e"

# Most workers have no privileges. Their dumpers are not dumpable, and everything works nevertheless.
class OrdinaryUserTest < E2E::Case
  NOBODY = 65_534

  def setup
    super
    skip "every other test ran without privileges" unless Process.euid.zero?
  end

  def test_a_dumper_without_privileges_is_undumpable_and_still_measures_itself
    configure(rule("asked", "on_demand = {}", %w[threads heap_dump]), "reports.heap_dump": 'producer = "dump_all"')
    script = start_script(wrapper: as_nobody)
    script.run("KEPT = Array.new(200_000) { |i| i.to_s * 10 }")
    diagctl!("request", "--reason", "look at its dumper")
    during_a_dump do |dumper, put|
      assert_equal NOBODY, E2E::Processes.status(dumper, "Uid")
      # If a process is not dumpable, its /proc files belong to root.
      assert_equal 0, File.stat("/proc/#{dumper}/fd").uid
      # The stopped put may have been caught just before it made itself undumpable.
      wait_until("the put is undumpable") do
        E2E::Processes.signal(:CONT, put)
        sleep 0.002
        E2E::Processes.signal(:STOP, put)
        File.stat("/proc/#{put}/fd").uid.zero?
      end
      assert_equal 1000, File.read("/proc/#{dumper}/oom_score_adj").to_i
    end
    cost = meta(wait_for_captures(script).first.fetch("id")).fetch("cost")
    %w[fork_ms pause_ms dumper_cpu_ms dumper_peak_rss_bytes copied_bytes].each { |name| assert_operator cost.fetch(name), :>, 0, name }
    assert_operator cost.fetch("copied_bytes"), :<, cost.fetch("dumper_peak_rss_bytes")
  end

  def test_smaps_of_a_process_that_is_not_dumpable_says_what_is_needed
    configure(rule("asked", "on_demand = {}", %w[smaps fds process]))
    script = start_script(wrapper: as_nobody)
    # PR_SET_DUMPABLE
    script.run('require "fiddle"; Fiddle::Function.new(Fiddle::Handle::DEFAULT["prctl"], [Fiddle::TYPE_INT, Fiddle::TYPE_LONG], Fiddle::TYPE_INT).call(4, 0)')
    wait_until("it is not dumpable") { File.stat("/proc/#{script.pid}/fd").uid.zero? }
    result = diagctl("request", "smaps", "fds", "process", "--reason", "x", "--wait")
    assert_equal 5, result.status, result
    id = result.out.strip
    errors = meta(id).fetch("reports").to_h { |report| report.values_at("name", "error") }
    %w[smaps fds].each { |name| assert_match(/not dumpable .*CAP_SYS_PTRACE/, errors[name]) }
    assert_nil errors["process"]
  end

  # `sudo diagctl request` before the first poll of workers that run as another user.
  def test_what_root_asks_for_before_the_first_poll_does_not_lock_the_workers_out
    configure(rule("asked", "on_demand = {}", %w[gc_stat]))
    wrapper = as_nobody
    diagctl!("pause")
    diagctl!("request", "gc_stat", "--reason", "the first ever")
    assert_equal [NOBODY, 0o700], File.stat(@store).then { |stat| [stat.uid, stat.mode & 0o777] }
    diagctl!("resume")
    script = start_script(wrapper: wrapper)
    assert_equal "script", meta(wait_for_captures(script).first.fetch("id")).fetch("role")
  end

  def test_root_creates_no_store_where_its_owner_is_not_clear
    configure
    File.chmod(0o1777, @root)
    [["pause"], ["request", "gc_stat", "--reason", "the first ever"]].each do |command|
      refused = diagctl(*command)
      assert_equal 1, refused.status, refused
      assert_match(/would lock out workers.*\n.*sudo -u USER diagctl/, refused.err)
      refute_path_exists @store
    end
    # A worker that runs as root is its owner.
    assert holder.acquire.status == 10
    assert_equal 0, File.stat(@store).uid
    diagctl!("pause")
  end

  private

  # Other users may have no access to the working copy.
  def as_nobody
    FileUtils.cp(E2E::BIN, File.join(@root, "diagctl"))
    lib = File.join(@root, "lib")
    FileUtils.cp_r(E2E::PumaServer::LOAD_PATH.split(":").first, lib)
    FileUtils.chown_R(NOBODY, NOBODY, @root)
    ["setpriv", "--reuid=#{NOBODY}", "--regid=#{NOBODY}", "--clear-groups", "env", "RUBYLIB=#{lib}", "DIAGCTL_BIN=#{File.join(@root, "diagctl")}"]
  end
end
