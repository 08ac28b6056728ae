# frozen_string_literal: true

require "json"
require "openssl"
require "socket"
require_relative "../e2e/support/hook_events"
require_relative "support/directory_case"

module E2E
  # The webhook of [on_capture], against an HTTP server.
  class WebhookTest < DirectoryCase
    include HookEvents

    # Answers each request with the next answer of a list, and the last one from then on. `:hang` says nothing.
    class Receiver
      attr_reader :port, :requests

      # tls: a certificate and its key.
      def initialize(*answers, tls: nil)
        @answers = answers
        @requests = []
        @server = TCPServer.new("127.0.0.1", 0)
        @port = @server.addr[1]
        @open = []
        listener = tls ? OpenSSL::SSL::SSLServer.new(@server, context(*tls)) : @server
        @thread = Thread.new { loop { accept(listener) } }
      end

      def stop
        @thread.kill.join
        [@server, *@open].each(&:close)
      end

      private

      def context(certificate, key) = OpenSSL::SSL::SSLContext.new.tap { |context| context.add_certificate(certificate, key) }

      def accept(listener)
        serve(listener.accept)
      rescue OpenSSL::SSL::SSLError
        nil # The client does not trust the certificate.
      end

      def serve(socket)
        head = socket.gets("\r\n\r\n") or return socket.close
        body = socket.read(head[/content-length: (\d+)/i, 1].to_i)
        @requests << [head, body]
        answer = @answers.size > 1 ? @answers.shift : @answers.first
        return @open << socket if answer == :hang

        socket.write("HTTP/1.1 #{answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        socket.close
      end
    end

    def env(**more) = super(PATH: "#{File.dirname(REMOTE_BIN)}:#{ENV.fetch("PATH")}", **more)

    def teardown
      @receiver&.stop
      super
    end

    def test_the_record_is_posted_with_the_headers_of_the_file
      headers = File.join(@root, "headers")
      File.write(headers, "Authorization: Bearer s3cret\n")
      webhook("200 OK", "headers_file = #{headers.inspect}")
      id = capture
      assert_equal ["hook", "webhook"], event_of(id).values_at("event", "cause")
      (head, body), = @receiver.requests
      assert_equal diagctl!("show", id, "--json").json, JSON.parse(body)
      assert_match(%r{\APOST /hook HTTP/1.1}, head)
      assert_match(/^authorization: Bearer s3cret\r$/i, head)
      assert_match(/^content-type: application\/json\r$/i, head)
      assert_match(/^x-diagctl-capture: #{id}\r$/i, head)
      assert_match(%r{^user-agent: diagctl/}i, head)
    end

    def test_a_secret_url_is_nowhere_but_in_its_file
      @receiver = Receiver.new("403 Forbidden")
      file = File.join(@root, "url")
      File.write(file, "http://127.0.0.1:#{@receiver.port}/T0/sesame\n")
      configure(on_capture: "webhook_file = #{file.inspect}")
      id = capture
      assert_equal "webhook: it answered 403 Forbidden", event_of(id)["reason"]
      assert_equal 1, @receiver.requests.size
      refute_match(/sesame/, Dir[File.join(@store, "**/*")].select { |path| File.file?(path) }.map { |path| File.binread(path) }.join)
      refute_match(/sesame/, diagctl!("config", "show").out)
      @receiver.stop
      @receiver = nil
      refused = capture
      reason = event_of(refused)["reason"]
      assert_match(/Connection refused.*at each of 5 attempts/, reason)
      refute_match(/sesame/, reason)
    end

    def test_a_server_that_fails_is_tried_again
      webhook("500 Internal Server Error", "", "429 Too Many Requests", "204 No Content")
      id = capture
      assert_equal "hook", event_of(id)["event"]
      assert_equal 3, @receiver.requests.size
    end

    def test_a_server_that_hangs_is_given_up_and_nobody_waits_for_it
      webhook(:hang, 'timeout = "200ms"')
      id = capture
      assert_equal "webhook: it did not answer in time, at each of 5 attempts", event_of(id)["reason"]
      assert_equal 5, @receiver.requests.size
      assert listed?(id)
    end

    def test_a_redirect_is_not_followed
      other = Receiver.new("200 OK")
      webhook("307 Temporary Redirect\r\nLocation: http://127.0.0.1:#{other.port}/")
      id = capture
      assert_equal "webhook: it answered 307 Temporary Redirect; redirects are not followed", event_of(id)["reason"]
      assert_empty other.requests
      other.stop
    end

    def test_a_certificate_must_be_one_that_the_system_trusts
      certificate, key = self_signed
      @receiver = Receiver.new("200 OK", tls: [certificate, key])
      configure(on_capture: "webhook = \"https://localhost:#{@receiver.port}/s3cret\"")
      reason = event_of(capture)["reason"]
      assert_match(/certificate/i, reason)
      refute_match(/s3cret/, reason)
      assert_empty @receiver.requests
      authority = File.join(@root, "authority.pem")
      File.write(authority, certificate.to_pem)
      id = diagctl!("run", "--report", "out", "--", "echo", "x", env: env(SSL_CERT_FILE: authority)).out.chomp
      assert_equal "hook", event_of(id)["event"], event_of(id)["reason"]
      assert_equal id, JSON.parse(@receiver.requests.first.last)["id"]
    end

    def test_a_real_puma_posts_its_captures_and_serves_meanwhile
      webhook(:hang, 'timeout = "3s"')
      server = puma
      wait_until("a first poll") { Dir.glob(File.join(@store, "samples", "*")).any? }
      id = diagctl!("request", "gc_stat", "--reason", "a test", "--wait").out[/\d{8}T\d+Z-\h{8}/]
      wait_until("it is posted") { @receiver.requests.any? }
      10.times { assert_match(/\Aok/, server.get("/", timeout: 5)) }
      assert_equal id, JSON.parse(@receiver.requests.first.last)["id"]
      assert_equal false, diagctl!("status", "--json").json.dig("lease", "taken")
      assert_empty Processes.descendants_but_polls(server.pid)
      server.stop
    end

    private

    def webhook(answer, more = "", *answers)
      @receiver = Receiver.new(answer, *answers)
      configure(rule("asked", 'on_demand = { min_interval = "1s" }', %w[gc_stat]),
        on_capture: "webhook = \"http://127.0.0.1:#{@receiver.port}/hook\"\n#{more}")
    end

    def self_signed
      key = OpenSSL::PKey::EC.generate("prime256v1")
      certificate = OpenSSL::X509::Certificate.new
      certificate.version = 2
      certificate.serial = 1
      certificate.subject = certificate.issuer = OpenSSL::X509::Name.parse("/CN=localhost")
      certificate.public_key = key
      certificate.not_before = Time.now - 3600
      certificate.not_after = Time.now + 86_400
      extensions = OpenSSL::X509::ExtensionFactory.new(certificate, certificate)
      [["subjectAltName", "DNS:localhost"], ["extendedKeyUsage", "serverAuth"]].each { |name, value| certificate.add_extension(extensions.create_extension(name, value)) }
      [certificate.sign(key, "SHA256"), key]
    end

    def listed?(id) = captures.any? { |capture| capture["id"] == id }
  end
end
