# frozen_string_literal: true

require_relative "shipping"
require_relative "fault_proxy"
require_relative "moto_server"

module E2E
  # A test with a bucket of its own on a server that all share.
  class S3Case < Case
    include Shipping

    SERVER = MotoServer.missing? ? S3Server : MotoServer

    def self.server
      @@server ||= SERVER.new(Dir.mktmpdir("diagctl-e2e-s3-")).start.tap do |server|
        Processes.spare(server.pids)
        Minitest.after_run do
          server.stop
          FileUtils.rm_rf(server.dir)
        end
      end
    end

    def setup
      super
      skip(SERVER.missing?) if SERVER.missing?
      @server = self.class.server
      @bucket = "test-#{name.hash.abs.to_s(36)}-#{Process.pid}"
      @server.create_bucket(@bucket)
      remote
    end

    def only_on_a_server_that_checks
      skip("this server believes every signature and checksum") unless @server.checks?
    end

    # Writes the configuration of the remote.
    def remote(endpoint: @server.endpoint, **more)
      more = more.map { |key, value| "#{key} = #{value.inspect}\n" }.join
      configure(remote: "url = \"s3://#{@bucket}/fleet\"\nendpoint = \"#{endpoint}\"\n#{more}")
    end

    def shipping_env = env(**@server.environment.transform_keys(&:to_sym), PATH: "#{File.dirname(REMOTE_BIN)}:#{ENV.fetch("PATH")}")

    # The remote behind a proxy that makes faults.
    def faults(&fault)
      @proxy = FaultProxy.new(@server.port, &fault)
      remote(endpoint: @proxy.endpoint)
    end

    def teardown
      @proxy&.stop
      super
    end

    def remote_keys = @server.keys(@bucket)

    def remote_object(key) = @server.object(@bucket, key)

    def remote_write(key, content) = @server.request("PUT", "/#{@bucket}/#{key}", body: content)
  end

end
