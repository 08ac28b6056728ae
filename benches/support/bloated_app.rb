# frozen_string_literal: true

require "json"
require "objspace"
require "socket"

# A web application that has grown: a third of its memory are small objects, the rest long strings. A request
# takes a millisecond or two of Ruby that allocates, as requests do. What a benchmark wants done inside of the worker it
# says through a UNIX socket.
class BloatedApp
  Record = Struct.new(:id, :name, :tags, :settings)
  # Of a record with its strings, and of a string that a heap dump does not print because it is no text.
  RECORD_BYTES = 1000
  BLOB_BYTES = 16 << 10
  DOCUMENT = { "items" => Array.new(60) { |i| { "id" => i, "name" => "item #{i}", "price" => i * 1.5, "tags" => %w[a b c] } } }.freeze

  def initialize(megabytes)
    random = Random.new(1)
    bytes = megabytes * 1_000_000
    @records = Array.new(bytes / 3 / RECORD_BYTES) { |i| record(i, random) }
    @blobs = Array.new(bytes * 2 / 3 / BLOB_BYTES) { random.bytes(BLOB_BYTES) }
    4.times { GC.start } # what lives becomes old, as in a process that has served for hours
  end

  def call(_env)
    document = JSON.parse(JSON.generate(DOCUMENT))
    [200, { "content-type" => "text/plain" }, ["#{document.fetch("items").size} #{Process.pid}\n"]]
  end

  # Runs in the first worker that comes here, on a thread of its own.
  def listen(path)
    server = UNIXServer.new(path)
    Thread.new do
      while (client = server.accept)
        client.puts(JSON.generate(obey(*client.gets.split)))
        client.close
      end
    end
  rescue Errno::EADDRINUSE
    nil
  end

  private

  def record(id, random)
    Record.new(id, "user #{random.rand(1 << 40).to_s(36)}", Array.new(3) { "tag-#{random.rand(1000)}" },
               { "email" => "#{random.rand(1 << 50).to_s(36)}@example.org", "created" => "2026-11-#{random.rand(30)}" })
  end

  def obey(command, argument = nil)
    case command
    when "rss" then { pid: Process.pid, rss: File.read("/proc/self/status")[/VmRSS:\s*(\d+)/, 1].to_i * 1024 }
    when "fork" then { ms: spawned { fork { exit! } } }
    when "held" then spawned { fork { hold(argument.to_f) } } && {}
    when "spawn" then { ours: spawned { Diagctl::PosixSpawn.call(["/bin/true"], [], { 0 => $stdin }) }, rubys: spawned { Process.spawn("/bin/true") } }
    when "file" then File.open(argument, "w") { |file| ObjectSpace.dump_all(output: file) } && {}
    when "gzip" then gzip(argument)
    end
  rescue StandardError => e
    { error: "#{e.class}: #{e.message}" }
  end

  # A client whose connection is open in the child too would wait for its end.
  def hold(seconds)
    ObjectSpace.each_object(BasicSocket, &:close)
    sleep seconds
    exit!
  end

  # Milliseconds until the worker goes on.
  def spawned
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    pid = yield
    took = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
    Process.wait(pid)
    took * 1000
  end

  # As GitLab does it: `gzip --fast` at the other end of a pipe.
  def gzip(path)
    reader, writer = IO.pipe
    pid = Process.spawn("gzip", "--fast", in: reader, out: path)
    reader.close
    ObjectSpace.dump_all(output: writer)
    writer.close
    Process.wait(pid)
    {}
  end
end
