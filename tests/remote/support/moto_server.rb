# frozen_string_literal: true

require_relative "s3_server"

module E2E
  # moto on loopback: quick to start, and nearer to Amazon S3 than Swift in what it answers, but it believes every signature and every checksum. It comes
  # from PyPI (`pip install 'moto[server]'`), so it is used where DIAGCTL_TEST_MOTO names its program.
  class MotoServer < S3Server
    PROGRAM = ENV.fetch("DIAGCTL_TEST_MOTO", nil)

    def self.missing? = PROGRAM ? false : "DIAGCTL_TEST_MOTO names no moto_server"

    def checks? = false

    def initialize(dir)
      @dir = dir
      FileUtils.mkdir_p("#{dir}/log")
      @port = free_port
      @pids = {}
    end

    # Everything is gone with the process.
    def start
      @pids["moto"] = spawn(PROGRAM, "-H", "127.0.0.1", "-p", @port.to_s, %i[out err] => ["#{@dir}/log/moto", "a"], pgroup: true)
      reachable!(@port)
      self
    end
  end
end
