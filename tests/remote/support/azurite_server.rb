# frozen_string_literal: true

require "base64"
require_relative "one_program_server"

module E2E
  # Azurite on loopback, which Microsoft writes: it speaks the protocol of Azure Blob Storage, checks signatures, and tells checksums. It comes from npm
  # (`scripts/deps --remote`). DIAGCTL_TEST_AZURITE names another copy of its package.
  class AzuriteServer < OneProgramServer
    PACKAGE = ENV.fetch("DIAGCTL_TEST_AZURITE", File.join(ROOT, "target/tools/azurite/node_modules/azurite"))
    MAIN = File.join(PACKAGE, "dist/src/blob/main.js")
    # Those of every Azurite.
    ACCOUNT = "devstoreaccount1"
    SECRET = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def self.missing? = File.exist?(MAIN) ? false : "Azurite is not installed (scripts/deps --remote)"

    def endpoint = "#{super}/#{ACCOUNT}"

    def environment = { "AZURE_STORAGE_ACCOUNT_KEY" => SECRET }

    def start
      @pids["azurite"] = spawn("node", MAIN, "--blobHost", "127.0.0.1", "--blobPort", @port.to_s, "--location", "#{@dir}/data", "--silent",
                               "--disableTelemetry", %i[out err] => ["#{@dir}/log/azurite", "a"], pgroup: true)
      reachable!(@port)
      self
    end

    # Told to end, because it writes what it knows every five seconds only.
    def stop
      Process.kill(:TERM, @pids["azurite"])
      Process.wait(@pids["azurite"])
      @pids.clear
    end

    def request(method, path, query: {}, body: "")
      uri = URI("http://127.0.0.1:#{@port}/#{ACCOUNT}#{path}")
      uri.query = URI.encode_www_form(query) unless query.empty?
      headers = { "x-ms-date" => Time.now.httpdate, "x-ms-version" => "2023-11-03" }
      headers["x-ms-blob-type"] = "BlockBlob" if method == "PUT" && query.empty?
      headers["content-type"] = "application/octet-stream"
      headers["authorization"] = sign(method, uri, query, headers, body)
      Net::HTTP.start(uri.host, uri.port) do |http|
        request = Net::HTTPGenericRequest.new(method, %w[PUT POST].include?(method), true, uri, headers)
        request.body = body if %w[PUT POST].include?(method)
        http.request(request)
      end
    end

    def create_bucket(name)
      answer = request("PUT", "/#{name}", query: { "restype" => "container" })
      raise "no container: #{answer.body}" unless answer.code == "201"
    end

    def keys(bucket, prefix = "")
      keys, marker = [], ""
      loop do
        query = { "restype" => "container", "comp" => "list", "prefix" => prefix, "marker" => marker }.reject { |_, value| value.empty? }
        page = request("GET", "/#{bucket}", query: query).body
        keys += page.scan(%r{<Name>(.*?)</Name>}).flatten
        marker = page[%r{<NextMarker>(.+?)</NextMarker>}, 1] or return keys
      end
    end

    # Blobs of which blocks were sent, and no list of them.
    def uploads(bucket)
      page = request("GET", "/#{bucket}", query: { "restype" => "container", "comp" => "list", "include" => "uncommittedblobs" }).body
      page.scan(%r{<Name>(.*?)</Name>}).flatten - keys(bucket)
    end

    private

    # https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key
    def sign(method, uri, query, headers, body)
      length = body.empty? ? "" : body.bytesize.to_s
      of_azure = headers.select { |name, _| name.start_with?("x-ms-") }.sort.map { |pair| pair.join(":") }
      resource = ["/#{ACCOUNT}#{uri.path}", *query.sort.map { |pair| pair.join(":") }]
      text = [method, "", "", length, "", headers["content-type"], "", "", "", "", "", "", *of_azure, *resource].join("\n")
      "SharedKey #{ACCOUNT}:#{Base64.strict_encode64(OpenSSL::HMAC.digest("SHA256", Base64.decode64(SECRET), text))}"
    end
  end
end
