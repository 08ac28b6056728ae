# frozen_string_literal: true

require_relative "one_program_server"

module E2E
  # s3s-fs on loopback, which the authors of s3s wrote: a directory as S3. It checks signatures and payloads. It comes from crates.io (`cargo install --locked
  # --features binary s3s-fs@0.14.1`); DIAGCTL_TEST_S3S names its program, which the tests of S3 then use instead of Swift.
  class S3sServer < OneProgramServer
    PROGRAM = ENV.fetch("DIAGCTL_TEST_S3S", nil)

    def self.wanted? = !PROGRAM.nil?

    def self.missing? = File.exist?(PROGRAM.to_s) ? false : "DIAGCTL_TEST_S3S names no s3s-fs"

    def initialize(dir)
      super
      FileUtils.mkdir_p("#{dir}/data")
    end

    def start
      @pids["s3s"] = spawn(PROGRAM, "--host", "127.0.0.1", "--port", @port.to_s, "--access-key", KEY, "--secret-key", SECRET, "#{@dir}/data",
                           %i[out err] => ["#{@dir}/log/s3s", "a"], pgroup: true)
      reachable!(@port)
      self
    end
  end
end
