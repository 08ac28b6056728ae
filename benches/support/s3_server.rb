# frozen_string_literal: true

require "socket"
require "uri"
require_relative "machine"

module Bench
  # An S3 server of the tests, on loopback: s3s-fs if DIAGCTL_TEST_S3S names its program, otherwise OpenStack Swift. `make deps` does not install
  # either: `scripts/deps --remote` does.
  module S3
    module_function

    # Yields the server.
    def run(dir)
      ENV["DIAGCTL_TEST_BIN"] = BINARY
      require_relative "../../tests/remote/support/s3s_server"
      kind = E2E::S3sServer.wanted? ? E2E::S3sServer : E2E::S3Server
      abort kind.missing? if kind.missing?
      server = kind.new(File.join(dir, "server")).start
      server.create_bucket("bucket")
      yield server, E2E::S3sServer.wanted? ? "s3s-fs" : "OpenStack Swift"
    ensure
      server&.stop
    end

    # Passes bytes on to a port, in both directions, and counts the requests. Each request waits for `latency` seconds before it reaches the server, as if it were far away.
    class Relay
      attr_reader :requests

      def initialize(port, latency: 0)
        @port = port
        @latency = latency
        @requests = 0
        @listener = TCPServer.new("127.0.0.1", 0)
        @thread = Thread.new { loop { Thread.new(@listener.accept) { |client| serve(client) } } }
        @thread.report_on_exception = false
      end

      def endpoint = "http://127.0.0.1:#{@listener.addr[1]}"

      def reset = @requests = 0

      def stop
        @thread.kill
        @listener.close
      end

      private

      def serve(client)
        server = TCPSocket.new("127.0.0.1", @port)
        [client, server].each { |socket| socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1) }
        Thread.new { IO.copy_stream(server, client) rescue nil }
        loop do
          data = client.readpartial(256 << 10)
          if data.match?(/\A(GET|PUT|POST|HEAD|DELETE) /)
            @requests += 1
            sleep @latency if @latency.positive?
          end
          server.write(data)
        end
      rescue SystemCallError, IOError
        nil
      ensure
        [client, server].compact.each(&:close)
      end
    end
  end
end
