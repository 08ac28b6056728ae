# frozen_string_literal: true

require_relative "support/e2e"

# Most workers have no privileges. Their dumpers are not dumpable, and everything works nevertheless.
class OrdinaryUserTest < E2E::Case
  NOBODY = 65_534

  def test_a_dumper_without_privileges_is_undumpable_and_still_measures_itself
    skip "every other test ran without privileges" unless Process.euid.zero?

    configure(rule("asked", "on_demand = {}", %w[threads heap_dump]))
    # Other users may have no access to the working copy.
    FileUtils.cp(E2E::BIN, File.join(@root, "diagctl"))
    lib = File.join(@root, "lib")
    FileUtils.cp_r(E2E::PumaServer::LOAD_PATH.split(":").first, lib)
    FileUtils.chown_R(NOBODY, NOBODY, @root)
    script = start_script(wrapper: ["setpriv", "--reuid=#{NOBODY}", "--regid=#{NOBODY}", "--clear-groups", "env",
      "RUBYLIB=#{lib}", "DIAGCTL_BIN=#{File.join(@root, "diagctl")}"])
    script.run("KEPT = Array.new(200_000) { |i| i.to_s * 10 }")
    diagctl!("request", "--reason", "look at its dumper")
    during_a_dump do |dumper, _|
      assert_equal NOBODY, E2E::Processes.status(dumper, "Uid")
      # If a process is not dumpable, its /proc files belong to root.
      assert_equal 0, File.stat("/proc/#{dumper}/fd").uid
      assert_equal 1000, File.read("/proc/#{dumper}/oom_score_adj").to_i
    end
    cost = meta(wait_for_captures(script).first.fetch("id")).fetch("cost")
    %w[fork_ms pause_ms dumper_cpu_ms dumper_peak_rss_bytes copied_bytes].each { |name| assert_operator cost.fetch(name), :>, 0, name }
    assert_operator cost.fetch("copied_bytes"), :<, cost.fetch("dumper_peak_rss_bytes")
  end
end
