# frozen_string_literal: true

require "digest"
require "erb"
require "fileutils"
require "net/http"
require "openssl"
require "socket"

module E2E
  # An OpenStack Swift on loopback with its S3 API: one replica of account, container and object server behind a proxy, with a memcached. Swift serves S3
  # in production, checks signatures and payloads, and Debian packages it. It keeps its files in `dir`, on a filesystem with extended
  # attributes.
  class S3Server
    KEY = "fleet:nodes"
    SECRET = "a-secret-of-the-test"
    SERVERS = %w[account container object].freeze

    attr_reader :dir, :port

    def self.missing?
      return false if system("/usr/bin/python3", "-c", "import swift.common.middleware.s3api", out: File::NULL, err: File::NULL)

      "Swift is not installed (swift-proxy swift-account swift-container swift-object memcached)"
    end

    def initialize(dir)
      @dir = dir
      FileUtils.mkdir_p(["#{dir}/disks/d1", "#{dir}/log"])
      @ports = (SERVERS + %w[proxy cache]).to_h { |name| [name, free_port] }
      @port = @ports["proxy"]
      @pids = {}
      rings
      configure
    end

    def endpoint = "http://127.0.0.1:#{@port}"

    # True if it checks signatures and checksums.
    def checks? = true

    def environment
      { "AWS_ACCESS_KEY_ID" => KEY, "AWS_SECRET_ACCESS_KEY" => SECRET }
    end

    def start
      (SERVERS + ["proxy"]).each { |name| start_one(name) }
      @pids["cache"] = spawn("memcached", "-l", "127.0.0.1", "-p", @ports["cache"].to_s, "-u", user, pgroup: true)
      @ports.each_value { |port| reachable!(port) }
      self
    end

    def pids = @pids.values

    # Nothing of the server answers any more, and what it has stays.
    def stop
      @pids.each_value { |pid| Process.kill(:KILL, -pid) }
      @pids.each_value { |pid| Process.wait(pid) }
      @pids.clear
    end

    # One signed request of ours, which diagctl has no part in. Returns the response.
    def request(method, path, query: {}, body: "")
      time = Time.now.utc
      uri = URI("#{endpoint}#{path}")
      canonical_query = query.sort.map { |pair| pair.map { |text| ERB::Util.url_encode(text) }.join("=") }.join("&")
      uri.query = canonical_query unless canonical_query.empty?
      headers = { "host" => "#{uri.host}:#{uri.port}", "x-amz-content-sha256" => Digest::SHA256.hexdigest(body),
                  "x-amz-date" => time.strftime("%Y%m%dT%H%M%SZ") }
      headers["authorization"] = authorization(method, uri, headers)
      Net::HTTP.start(uri.host, uri.port) do |http|
        request = Net::HTTPGenericRequest.new(method, !body.empty?, true, uri, headers)
        request.body = body unless body.empty?
        request["content-type"] = "application/octet-stream"
        http.request(request)
      end
    end

    def create_bucket(name)
      answer = request("PUT", "/#{name}")
      raise "no bucket: #{answer.body}" unless answer.code == "200"
    end

    # A page has a thousand of them.
    def keys(bucket, prefix = "")
      keys = []
      loop do
        page = request("GET", "/#{bucket}", query: { "prefix" => prefix, "marker" => keys.last.to_s }).body
        keys += page.scan(%r{<Key>(.*?)</Key>}).flatten
        return keys unless page.include?("<IsTruncated>true")
      end
    end

    def uploads(bucket)
      request("GET", "/#{bucket}", query: { "uploads" => "" }).body.scan(%r{<UploadId>(.*?)</UploadId>}).flatten
    end

    def object(bucket, key) = request("GET", "/#{bucket}/#{key}").body

    def log
      Dir["#{@dir}/log/*"].map { |file| "== #{file}\n#{File.read(file).lines.last(20).join}" }.join("\n")
    end

    private

    # https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
    def authorization(method, uri, headers)
      signed = headers.keys.sort.join(";")
      canonical = [method, uri.path, uri.query.to_s, *headers.sort.map { |pair| pair.join(":") }, "", signed,
                   headers["x-amz-content-sha256"]].join("\n")
      date = headers["x-amz-date"]
      scope = "#{date[0, 8]}/us-east-1/s3/aws4_request"
      text = ["AWS4-HMAC-SHA256", date, scope, Digest::SHA256.hexdigest(canonical)].join("\n")
      hmac = ->(key, data) { OpenSSL::HMAC.digest("SHA256", key, data) }
      key = [date[0, 8], "us-east-1", "s3", "aws4_request"].reduce("AWS4#{SECRET}", &hmac)
      "AWS4-HMAC-SHA256 Credential=#{KEY}/#{scope}, SignedHeaders=#{signed}, " \
        "Signature=#{hmac.(key, text).unpack1("H*")}"
    end

    def free_port
      TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }
    end

    def start_one(name)
      log = "#{@dir}/log/#{name}"
      environment = { "PYTHONDONTWRITEBYTECODE" => "1" }
      @pids[name] = spawn(environment, "/usr/bin/python3", "/usr/bin/swift-#{name}-server", "#{@dir}/#{name}.conf",
                          %i[out err] => [log, "a"], pgroup: true)
    end

    def reachable!(port)
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 60
      begin
        TCPSocket.new("127.0.0.1", port).close
      rescue SystemCallError
        raise "Swift does not start:\n#{log}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

        sleep 0.05
        retry
      end
    end

    def rings
      SERVERS.each do |name|
        ring = "#{@dir}/#{name}.builder"
        builder = ["swift-ring-builder", ring]
        run(*builder, "create", "1", "1", "0")
        run(*builder, "add", "--region", "1", "--zone", "1", "--ip", "127.0.0.1", "--port", @ports[name].to_s,
            "--device", "d1", "--weight", "1")
        run(*builder, "rebalance")
      end
    end

    # swift-ring-builder ends with 1 after a warning.
    def run(*command)
      output = IO.popen(command, err: %i[child out], &:read)
      raise "#{command.join(" ")}: #{output}" if $?.exitstatus > 1
    end

    def configure
      File.write("#{@dir}/swift.conf", "[swift-hash]\nswift_hash_path_suffix = test\n[storage-policy:0]\nname = one\ndefault = yes\n")
      SERVERS.each do |name|
        File.write("#{@dir}/#{name}.conf", <<~CONF)
          [DEFAULT]
          #{common(name)}
          devices = #{@dir}/disks
          mount_check = false
          fallocate_reserve = 0
          [pipeline:main]
          pipeline = #{name}-server
          [app:#{name}-server]
          use = egg:swift##{name}
        CONF
      end
      File.write("#{@dir}/proxy.conf", <<~CONF)
        [DEFAULT]
        #{common("proxy")}
        [pipeline:main]
        pipeline = catch_errors cache listing_formats s3api tempauth bulk slo dlo proxy-server
        [app:proxy-server]
        use = egg:swift#proxy
        account_autocreate = true
        [filter:cache]
        use = egg:swift#memcache
        memcache_servers = 127.0.0.1:#{@ports["cache"]}
        [filter:tempauth]
        use = egg:swift#tempauth
        user_fleet_nodes = #{SECRET} .admin
        [filter:s3api]
        use = egg:swift#s3api
        # That of S3, instead of 4 MiB.
        min_segment_size = 5242880
        [filter:catch_errors]
        use = egg:swift#catch_errors
        [filter:listing_formats]
        use = egg:swift#listing_formats
        [filter:bulk]
        use = egg:swift#bulk
        [filter:slo]
        use = egg:swift#slo
        [filter:dlo]
        use = egg:swift#dlo
      CONF
    end

    def user = Process.uid.zero? ? "root" : `id -un`.chomp

    def common(name)
      "bind_ip = 127.0.0.1\nbind_port = #{@ports[name]}\nworkers = 0\nuser = #{user}\nswift_dir = #{@dir}\nlog_level = WARNING\nlog_address = /nonexistent"
    end
  end
end
