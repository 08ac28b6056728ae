# frozen_string_literal: true

require "socket"
require "time"

module E2E
  # A proxy before an HTTP server, one request a connection, that does to a request what `fault` says: called with method, target and
  # number of the request, it returns nil, an HTTP status to answer instead, :cut (the connection breaks within the body), :lost (the
  # server does its work, and the answer is lost), :flip (a byte of the body is changed), :short (an answer to HEAD tells a wrong size),
  # :other (an answer tells another checksum) or :stale (the times in the answer are an hour ago).
  class FaultProxy
    attr_reader :requests

    def initialize(port, &fault)
      @server_port = port
      @fault = fault
      @requests = []
      @listener = TCPServer.new("127.0.0.1", 0)
      @thread = Thread.new { loop { Thread.new(@listener.accept) { |client| serve(client) } } }
      @thread.report_on_exception = false
    end

    def endpoint = "http://127.0.0.1:#{@listener.addr[1]}"

    def stop
      @thread.kill
      @listener.close
    end

    private

    def serve(client)
      head = read_head(client) or return
      method, target = head.lines.first.split
      number = @requests.push("#{method} #{target}").size
      fault = @fault.call(method, target, number)
      length = head[/^content-length: (\d+)/i, 1].to_i
      return client.read(length / 2) if fault == :cut

      client.write("HTTP/1.1 100 Continue\r\n\r\n") if head.match?(/^expect:/i)
      body = client.read(length)
      return refuse(client, fault) if fault.is_a?(Integer)

      body.setbyte(length / 2, body.getbyte(length / 2) ^ 1) if fault == :flip && length.positive?
      answer = forward(head.gsub(/^(expect|connection):.*\r\n/i, ""), body)
      answer = answer.sub(/^content-length: \d+/i, "Content-Length: 1") if fault == :short
      answer = another_checksum(answer) if fault == :other
      answer = an_hour_ago(answer) if fault == :stale
      client.write(answer) unless fault == :lost
    rescue SystemCallError, IOError
      nil
    ensure
      client.close
    end

    def another_checksum(answer)
      answer.gsub(/^x-amz-checksum-sha256:.*\r\n/i, "").sub("\r\n", "\r\nx-amz-checksum-sha256: AAAA\r\n")
    end

    # Of the same length.
    def an_hour_ago(answer)
      answer.gsub(/(?<=<LastModified>)(\S{19})/) { |time| (Time.parse("#{time}Z") - 3600).utc.strftime("%Y-%m-%dT%H:%M:%S") }
            .gsub(/(?<=<Last-Modified>)([^<]+)/) { |time| (Time.httpdate(time) - 3600).httpdate }
    end

    def read_head(client)
      head = +""
      until head.end_with?("\r\n\r\n")
        line = client.gets or return
        head << line
      end
      head
    end

    def refuse(client, status)
      body = "<Error><Code>Fault#{status}</Code><Message>by the test</Message></Error>"
      client.write("HTTP/1.1 #{status} Fault\r\nContent-Type: application/xml\r\nContent-Length: #{body.bytesize}\r\n" \
                   "Connection: close\r\n\r\n#{body}")
    end

    def forward(head, body)
      TCPSocket.open("127.0.0.1", @server_port) do |server|
        server.write(head.sub(/\r\n\r\n\z/, "\r\nConnection: close\r\n\r\n"), body)
        server.read
      end
    end
  end
end
