# frozen_string_literal: true

require "socket"
require_relative "support/directory_case"
require_relative "support/reading"

module E2E
  # A server that speaks just enough S3 to send answers without end. The memory of a shipper has its limit all the same.
  class BadServerTest < DirectoryCase
    include Reading

    LENGTH = 200 << 20

    def setup
      @listener = TCPServer.new("127.0.0.1", 0)
      super
      @server = Thread.new { loop { Thread.new(@listener.accept) { |client| serve(client) } } }
      @server.report_on_exception = false
    end

    def teardown
      @server.kill
      @listener.close
      super
    end

    def remote_section
      "url = \"s3://acme/prod\"\nendpoint = \"http://127.0.0.1:#{@listener.addr[1]}\"\nregion = \"x\""
    end

    def shipping_env = super.merge("AWS_ACCESS_KEY_ID" => "a", "AWS_SECRET_ACCESS_KEY" => "b")

    def test_a_refusal_without_end
      @answer = ->(client, method, _) { method == "GET" ? refuse(client, 404, 0) : refuse(client, 403, LENGTH) }
      capture
      assert_ships_in_64_mib(/: AccessDenied: by the test$/)
    end

    def test_a_list_without_end
      @answer = lambda do |client, _, _|
        client.write("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: #{LENGTH}\r\n\r\n<ListBucketResult>")
        pour(client, LENGTH - 18)
      end
      result = read("list")
      assert_equal 1, result.status, result
      assert_match(/cannot list manifests in \S+ at \S+: 127.0.0.1:\d+ sent a list of more than 8.00 MiB\n  hint: remote.endpoint must be/, result.err)
    end

    def test_records_that_are_longer_than_those_of_the_store
      @answer = lambda do |client, method, target|
        next refuse(client, 403, 0) unless method == "GET" && target.end_with?("meta.json")

        client.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nLast-Modified: Sat, 28 Nov 2026 10:15:30 GMT\r\nContent-Length: #{4 << 20}\r\n\r\n")
        64.times { client.write(" " * (64 << 10)) and sleep(0.02) }
      end
      20.times { capture }
      assert_ships_in_64_mib(/AccessDenied/)
    end

    def test_a_list_that_always_has_another_page
      id = capture
      page = Array.new(1000) { |n| "<Contents><Key>prod/captures/#{n}</Key><LastModified>2026-11-28T10:15:30Z</LastModified><Size>1</Size></Contents>" }
      page = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>#{page.join}</ListBucketResult>"
      record = File.binread(File.join(@store, "reports", id, "meta.json"))
      @answer = lambda do |client, method, target|
        next refuse(client, 403, 0) unless method == "GET"

        body = target.end_with?("meta.json") ? record : page
        client.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nLast-Modified: Sat, 28 Nov 2026 10:15:30 GMT\r\n" \
                     "Content-Length: #{body.bytesize}\r\nConnection: close\r\n\r\n#{body}")
      end
      assert_ships_in_64_mib(/AccessDenied/)
    end

    private

    def assert_ships_in_64_mib(reason)
      log = File.join(@root, "log")
      pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => log)
      most = 0
      until Process.wait(pid, Process::WNOHANG)
        most = [most, Processes.status(pid, "VmHWM") || 0].max
        sleep 0.02
      end
      assert_match(reason, File.read(log))
      assert_includes 1...(64 << 10), most, "KiB at the peak"
    end

    def serve(client)
      method, target = (client.gets or return).split
      length = 0
      while (line = client.gets.chomp) != ""
        length = line[/\Acontent-length: (\d+)/i, 1]&.to_i || length
      end
      client.read(length)
      @answer.call(client, method, target)
    rescue SystemCallError, IOError
      nil
    ensure
      client.close
    end

    def refuse(client, status, more)
      body = "<Error><Code>AccessDenied</Code><Message>by the test</Message></Error>"
      client.write("HTTP/1.1 #{status} Refused\r\nContent-Length: #{body.bytesize + more}\r\nConnection: close\r\n\r\n#{body}")
      pour(client, more)
    end

    def pour(client, bytes)
      chunk = " " * (1 << 20)
      (bytes >> 20).times { client.write(chunk) }
    end
  end
end
