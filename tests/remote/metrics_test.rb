# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "../e2e/support/promtool"

module E2E
  # The metrics of a store that ships and tells a hook.
  class FleetMetricsTest < DirectoryCase
    def test_prometheus_accepts_the_numbers_of_shipping_and_hooks
      configure(remote: remote_section, on_capture: 'command = ["false"]')
      ids = [capture, capture]
      wait_until("both hooks have failed") { diagctl!("metrics").out.include?('diagctl_hooks_total{hook="command",outcome="failed"} 2') }
      ship!
      capture
      file = File.join(@root, "diagctl.prom")
      diagctl!("metrics", "--textfile", file)
      text = File.read(file)
      ["diagctl_unshipped_captures 1", "diagctl_ship_failures_total 0", "diagctl_ship_failing 0", "diagctl_dropped_captures_total 0",
       'diagctl_events_total{event="shipped",rule="run"} 2', 'diagctl_captures{rule="run"} 3', "diagctl_lease_waits_total 0"].each do |line|
        assert_includes text.lines(chomp: true), line
      end
      shipped = text[/^diagctl_last_shipped_timestamp_seconds (\S+)/, 1].to_f
      assert_in_delta Time.now.to_f, shipped, 600
      assert_operator text[/^diagctl_unshipped_bytes (\d+)/, 1].to_i, :>, 1000
      assert(ids.all? { |id| shipped?(id) })
      Promtool.check(self, text)
    end
  end
end
