# frozen_string_literal: true

module E2E
  # A heap dump of one line that contains these bytes, and is no more compressible than they are.
  def self.dump(bytes) = %({"type":"ROOT", "root":"#{bytes.b.tr("\"\\\\\n", "x")}"}\n).b

  # A dumper without Puma. It speaks the protocol of docs/protocol.md to the binary, with one open file description per holder.
  class LeaseHolder
    attr_reader :answer, :lease

    def initialize(store, env)
      @store = store
      @env = env
      FileUtils.mkdir_p(store, mode: 0o700)
      @lease = File.open(File.join(store, "lease.lock"), File::RDWR | File::CREAT | File::NOFOLLOW, 0o600)
      owner = File.stat(store)
      @lease.chown(owner.uid, owner.gid) if Process.euid.zero?
    end

    # Returns the Result of the poll. `answer` is the object that the poll printed.
    def acquire(*flags, pid: Process.pid, role: "puma")
      result = call("acquire", "--pid", pid, "--role", role, *flags)
      @answer = result.out.empty? ? nil : result.json
      result
    end

    def granted? = @answer&.fetch("verdict") == "granted"

    def capture = @answer&.fetch("capture", nil)

    def staging = @answer.fetch("dir")

    # `also` is an open file that the `put` inherits too.
    def put(report, data, also = nil, id: capture) = call("put", id, report, stdin: data, also: also)

    def walker(*flags, id: capture) = call("walker", id, *flags)

    def finalize(*flags, id: capture) = call("finalize", id, *flags)

    def abort(reason, id: capture) = call("abort", id, "--reason", reason)

    # Starts a `put`, and returns the write end of its pipe and its pid.
    def start_put(report)
      reader, writer = IO.pipe(binmode: true)
      pid = Process.spawn(@env, *argv("put", capture, report), in: reader, out: File::NULL, err: File::NULL,
                          @lease.fileno => @lease.fileno, unsetenv_others: true)
      reader.close
      [writer, pid]
    end

    def close = @lease.close

    private

    def call(command, *rest, stdin: "", also: nil)
      inherited = [@lease, also].compact.to_h { |file| [file.fileno, file.fileno] }
      Command.run(*argv(command, *rest), env: @env, stdin: stdin, **inherited)
    end

    def argv(command, *rest) = [BIN, "--dir", @store, command, *rest.map(&:to_s), "--lease-fd", @lease.fileno.to_s]
  end
end
