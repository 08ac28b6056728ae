# frozen_string_literal: true

require "json"
require "socket"

module E2E
  # A real Redis for one test, on a socket in its directory, with nothing kept on disk. The tests speak the Redis protocol
  # directly, so that the version of a client library does not matter.
  class Redis
    attr_reader :socket, :pid

    def initialize(root)
      @socket = File.join(root, "redis.sock")
      @log = File.join(root, "redis.log")
    end

    def start
      @pid = Process.spawn("redis-server", "--port", "0", "--unixsocket", @socket, "--save", "", "--appendonly", "no",
                           in: :close, %i[out err] => [@log, "a"], pgroup: true)
      E2E.wait_until("Redis answers", tell: -> { File.read(@log) }) { answers? }
      self
    end

    def url = "unix://#{@socket}"

    def stop
      Processes.signal(:KILL, @pid)
      Process.wait(@pid)
    end

    # Returns the answer to a command such as LPUSH or ZRANGE: a string, a number, nil or a list of these.
    def call(*words)
      UNIXSocket.open(@socket) do |socket|
        socket.write("*#{words.size}\r\n", *words.map { |word| "$#{word.to_s.bytesize}\r\n#{word}\r\n" })
        answer(socket)
      end
    end

    # Pushes a job as Sidekiq's client does in any version, and returns its jid.
    def push(job, *args, queue: "default", **more)
      jid = format("%024x", rand(1 << 96))
      now = Time.now.to_f
      payload = { class: job, args: args, jid: jid, queue: queue, retry: true, created_at: now, enqueued_at: now, **more }
      call("SADD", "queues", queue)
      call("LPUSH", "queue:#{queue}", JSON.generate(payload))
      jid
    end

    # Returns the jids waiting in a queue.
    def waiting(queue = "default") = jids(call("LRANGE", "queue:#{queue}", 0, -1))

    # Returns the jobs that failed and will be retried.
    def retries = call("ZRANGE", "retry", 0, -1).map { |payload| JSON.parse(payload) }

    private

    def jids(payloads) = payloads.map { |payload| JSON.parse(payload).fetch("jid") }

    def answers?
      call("PING") == "PONG"
    rescue SystemCallError
      false
    end

    def answer(socket)
      line = socket.gets.chomp
      number = line[1..].to_i
      case line[0]
      when "+" then line[1..]
      when ":" then number
      when "$" then number.negative? ? nil : socket.read(number + 2).chomp
      when "*" then Array.new(number) { answer(socket) }
      else raise "Redis: #{line}"
      end
    end
  end
end
