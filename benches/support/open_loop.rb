# frozen_string_literal: true

require "socket"

# Load at a fixed arrival rate, from a separate process. A request is sent when it is due, however many are unanswered, on a
# connection of its own, and its latency counts from the time it was due. A pause of the server is therefore seen by every
# request that was due during it. Clients that wait for an answer before they ask again hide such pauses.
#
#   ruby open_loop.rb PORT RATE PAGE ANSWER      runs until TERM; ANSWER is a regular expression for the body of a complete answer.
#
# At the end it prints a line per request: the time it was due (monotonic s), and its latency (ms) or error. The last line is
# the longest delay in sending a request (ms).
class OpenLoop
  TIMEOUT = 120.0

  def initialize(port, rate, page, answer)
    @request = "GET #{page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    @answer = %r{\AHTTP/1.1 200 .*\r\n\r\n.*#{answer}}m
    @address = Socket.sockaddr_in(port, "127.0.0.1")
    @interval = 1.0 / rate
    @open = {} # socket => [due, answer so far], in the order of sending
    @connecting = {}
    @results = []
    @stop = false
    @lag = 0.0
  end

  def run
    trap(:TERM) { @stop = true }
    due = now + 0.1
    until @stop && @open.empty?
      while !@stop && due <= now
        send_request(due)
        due += @interval
      end
      exchange(@stop ? 0.05 : [due - now, 0].max)
      give_up
    end
    puts(@results.map { |moment, outcome| "#{moment} #{outcome}" }, "lag #{@lag * 1000}")
  end

  private

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  def send_request(due)
    @lag = [@lag, now - due].max
    socket = Socket.new(:INET, :STREAM)
    @open[socket] = [due, +""]
    @connecting[socket] = true if socket.connect_nonblock(@address, exception: false) == :wait_writable
    write(socket) unless @connecting[socket]
  rescue SystemCallError => e
    finish(socket, e.class)
  end

  def write(socket)
    socket.write_nonblock(@request)
  rescue SystemCallError => e
    finish(socket, e.class)
  end

  def exchange(wait)
    readable, writable = IO.select(@open.keys - @connecting.keys, @connecting.keys, nil, wait)
    writable&.each { |socket| connected(socket) }
    readable&.each { |socket| read(socket) }
  end

  def connected(socket)
    @connecting.delete(socket)
    error = socket.getsockopt(:SOCKET, :ERROR).int
    error.zero? ? write(socket) : finish(socket, SystemCallError.new(error).class)
  end

  def read(socket)
    chunk = socket.read_nonblock(4096, exception: false)
    return if chunk == :wait_readable
    return @open[socket][1] << chunk if chunk

    whole = @open[socket][1].match?(@answer)
    finish(socket, whole ? nil : "BadAnswer")
  rescue SystemCallError => e
    finish(socket, e.class)
  end

  def give_up
    late = now - TIMEOUT
    while (first = @open.first) && first[1][0] < late
      finish(first[0], "Timeout")
    end
  end

  def finish(socket, error)
    due, = @open.delete(socket)
    @connecting.delete(socket)
    @results << [due, error || ((now - due) * 1000).round(3)]
    socket.close
  end
end

GC.disable # A collection would look like a pause of the server; a round allocates only some megabytes.
OpenLoop.new(Integer(ARGV[0]), Float(ARGV[1]), ARGV[2], ARGV[3]).run
