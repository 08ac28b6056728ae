# frozen_string_literal: true

require "json"
require "objspace"
require "socket"

# A web application that has grown: a third of its memory is small objects, the rest is long strings. A request takes a
# millisecond or two of Ruby that allocates, as real requests do. A benchmark sends commands to the worker through a UNIX
# socket.
class BloatedApp
  Record = Struct.new(:id, :name, :tags, :settings)
  # The sizes of a record with its strings, and of a string that is omitted from heap dumps because it is binary.
  RECORD_BYTES = 1000
  BLOB_BYTES = 16 << 10
  DOCUMENT = { "items" => Array.new(60) { |i| { "id" => i, "name" => "item #{i}", "price" => i * 1.5, "tags" => %w[a b c] } } }.freeze

  def initialize(megabytes)
    random = Random.new(1)
    bytes = megabytes * 1_000_000
    @records = Array.new(bytes / 3 / RECORD_BYTES) { |i| record(i, random) }
    @blobs = Array.new(bytes * 2 / 3 / BLOB_BYTES) { random.bytes(BLOB_BYTES) }
    4.times { GC.start } # live objects become old, as in a process that has served for hours
  end

  def call(_env)
    document = JSON.parse(JSON.generate(DOCUMENT))
    [200, { "content-type" => "text/plain" }, ["#{document.fetch("items").size} #{Process.pid}\n"]]
  end

  # Runs on a thread of its own in the first worker that calls it.
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

  # Closes all sockets: a client whose connection stayed open in the child would wait for the child's end.
  def hold(seconds)
    ObjectSpace.each_object(BasicSocket, &:close)
    sleep seconds
    exit!
  end

  # Returns the milliseconds until the worker continues.
  def spawned
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    pid = yield
    took = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
    Process.wait(pid)
    took * 1000
  end

  # Dumps as GitLab does: `gzip --fast` at the other end of a pipe.
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
