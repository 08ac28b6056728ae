# frozen_string_literal: true

module E2E
  # Prometheus' own judgement of metrics. `scripts/deps --remote` fetches the program.
  module Promtool
    PATH = "#{File.join(ENV.fetch("CARGO_TARGET_DIR", File.join(ROOT, "target")), "tools/bin")}:#{ENV.fetch("PATH")}".freeze

    # Fails the test if promtool finds a fault in the text format of Prometheus.
    def self.check(test, text)
      env = { "PATH" => PATH }
      test.skip("promtool is not installed (prometheus)") unless system(env, "sh", "-c", "command -v promtool", out: File::NULL)
      told = IO.popen(env, %w[promtool check metrics], "r+", err: %i[child out]) { |tool| tool.write(text) && tool.close_write && tool.read }
      test.assert_equal 0, $?.exitstatus, told
    end
  end
end
