# frozen_string_literal: true

require_relative "one_program_server"

module E2E
  # moto on loopback: quick to start, and nearer to Amazon S3 than Swift in what it answers, but it believes every signature and every checksum. It comes
  # from PyPI (`scripts/deps --remote`). DIAGCTL_TEST_MOTO names another program, which the tests of S3 then use instead of Swift.
  class MotoServer < OneProgramServer
    PROGRAM = ENV.fetch("DIAGCTL_TEST_MOTO", File.join(ROOT, "target/tools/moto/bin/moto_server"))

    def self.wanted? = ENV.key?("DIAGCTL_TEST_MOTO")

    def self.missing? = File.exist?(PROGRAM) ? false : "moto is not installed (scripts/deps --remote)"

    def checks? = false

    # Everything is gone with the process.
    def start
      @pids["moto"] = spawn(PROGRAM, "-H", "127.0.0.1", "-p", @port.to_s, %i[out err] => ["#{@dir}/log/moto", "a"], pgroup: true)
      reachable!(@port)
      self
    end
  end
end
