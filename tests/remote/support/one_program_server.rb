# frozen_string_literal: true

require_relative "s3_server"

module E2E
  # A server that is one program, on a port of its own.
  class OneProgramServer < S3Server
    def initialize(dir)
      @dir = dir
      FileUtils.mkdir_p("#{dir}/log")
      @port = free_port
      @pids = {}
    end
  end
end
