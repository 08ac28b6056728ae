# frozen_string_literal: true

require_relative "shipping"
require_relative "fault_proxy"
require_relative "moto_server"
require_relative "s3s_server"

module E2E
  # A test with a bucket of its own on a server that all share. The clouds override what differs.
  class S3Case < Case
    include Shipping

    @servers = {}

    # Returns the only server of a class.
    def self.running(kind)
      @servers[kind] ||= kind.new(Dir.mktmpdir("diagctl-e2e-s3-")).start.tap do |server|
        Processes.spare(server.pids)
        Minitest.after_run do
          server.stop
          FileUtils.rm_rf(server.dir)
        end
      end
    end

    def server_class = [S3sServer, MotoServer].find(&:wanted?) || S3Server

    def setup
      super
      skip(server_class.missing?) if server_class.missing?
      @server = S3Case.running(server_class)
      # Of this class: S3 and Google have the same tests, and with moto the same server.
      @bucket = "test-#{[self.class.name, name].hash.abs.to_s(36)}-#{Process.pid}"
      @server.create_bucket(@bucket)
      remote
    end

    def only_on_a_server_that_checks
      skip("this server believes every signature and checksum") unless @server.checks?
    end

    # Writes the configuration of the remote.
    def remote(endpoint: @server.endpoint, **more)
      more = more.map { |key, value| "#{key} = #{value.inspect}\n" }.join
      configure(remote: "url = \"#{remote_url}\"\nendpoint = \"#{endpoint}\"\n#{more}")
    end

    def remote_url = "s3://#{@bucket}/fleet"

    # An environment with which nothing works.
    def wrong_key = shipping_env.merge("AWS_SECRET_ACCESS_KEY" => "wrong")

    # The code that the server answers to it, and that for a bucket that does not exist.
    def codes = %w[SignatureDoesNotMatch NoSuchBucket]

    # The name that `uploads` of the server has for an upload of the journal.
    def name_of_upload(upload) = upload["upload_id"]

    def shipping_env = env(**@server.environment.transform_keys(&:to_sym), PATH: "#{File.dirname(REMOTE_BIN)}:#{ENV.fetch("PATH")}")

    # The remote behind a proxy that makes faults.
    def faults(&fault)
      @proxy = FaultProxy.new(@server.port, &fault)
      remote(endpoint: @server.endpoint.sub(%r{\Ahttp://[^/]+}, @proxy.endpoint))
    end

    # The target of a request as people write it: the client for Google escapes more than others.
    def plain(target) = URI::DEFAULT_PARSER.unescape(target)

    def teardown
      @proxy&.stop
      super
    end

    def remote_keys = @server.keys(@bucket)

    def remote_object(key) = @server.object(@bucket, key)

    def remote_write(key, content) = @server.request("PUT", "/#{@bucket}/#{key}", body: content)
  end
end
