# frozen_string_literal: true

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
require "minitest/autorun"
require "diagctl"
require "tmpdir"
require "fileutils"
require "json"
require "open3"
require "rbconfig"
require "socket"
require "timeout"

# Records the lines that a Log writes.
class RecordingLogger
  attr_reader :lines

  def initialize
    @lines = []
  end

  def info(message)
    @lines << message
  end
  alias warn info
end

# One temporary directory per test, kept when the test fails, and scripts in place of the diagctl program.
module Sandbox
  LIB = File.expand_path("../lib", __dir__)
  IDLE = { "schema" => 1, "verdict" => "idle", "reason" => "nothing due", "retry_after" => 30, "poll_interval" => 0.05 }.freeze
  IDLE_ANSWER = "echo '#{JSON.generate(IDLE)}'; exit 10"

  def setup
    @dir = Dir.mktmpdir("diagctl-test")
    @store = File.join(@dir, "store")
    Dir.mkdir(@store, 0o700)
    Diagctl::Runtime.load
    @logger = RecordingLogger.new
    @log = Diagctl::Log.new.tap { |log| log.default = @logger }
    @config = Diagctl::Configuration.new
    @config.first_poll_within = 0.001
    @config.backoff = 0.05
    @config.acquire_timeout = 5
  end

  def teardown
    @poller&.stop(5)
    if passed? then FileUtils.rm_rf(@dir)
    else warn("kept: #{@dir}")
    end
  end

  # @param body [String] shell code; $cmd is the command, $dir the store, "$@" its arguments
  def binary(body)
    path = File.join(@dir, "diagctl")
    File.write(path, <<~SH)
      #!/bin/sh
      dir=$2; cmd=$3; shift 3
      case "$cmd $*" in
      put*--records) #{read_records("$2")} >/dev/null; exit 0;;
      *--records*) told=$(#{read_records("$2")}); echo "$cmd $* $told" >> "$dir/calls";;
      *--reason=-) echo "$cmd $1 $2 --reason=$(cat)" >> "$dir/calls";;
      *) echo "$cmd $*" >> "$dir/calls";;
      esac
      #{body}
    SH
    File.chmod(0o755, path)
    path
  end

  def read_records(capture)
    %("#{RbConfig.ruby}" --disable-all "#{File.expand_path("fake_records.rb", __dir__)}" "$dir" "#{capture}")
  end

  # Grants once, takes the lock as the real program does, and stores the reports that are put.
  def granting_binary(reports:, snapshot: "fork", deadline: 30, put: 'cat > "$dir/put.$3"', finalize: "exit 0", abort: "true",
    watch: [], verdict_after: IDLE)
    File.write(File.join(@store, "grant"), JSON.generate(schema: 1, verdict: "granted", reason: "test", rule: "r",
      capture: "20261122T101530123Z-7f3a9c2e", dir: "/x", retry_after: 30, poll_interval: 0.05, snapshot: snapshot,
      deadline: deadline, watch: watch, reports: reports.map { |name, producer| { name: name, producer: producer, options: {} } }))
    binary(<<~SH)
      case $cmd in
      acquire)
        if [ -e "$dir/grant" ] && flock -n 3; then cat "$dir/grant"; rm "$dir/grant"; exit 0; fi
        echo '#{JSON.generate(verdict_after)}'; exit 10;;
      put) #{put};;
      finalize) #{finalize};;
      abort) #{abort};;
      esac
    SH
  end

  def agent(path, adapters: Diagctl::Adapters.new(@config))
    @binary = path
    agent = Diagctl::Agent.new(role: "puma", name: "worker-0", binary: path, config: @config, log: @log,
      adapters: adapters)
    agent.define_singleton_method(:events!) { events }
    agent.instance_variable_set(:@client, Diagctl::Client.new(binary: path, dir: @store, config: @config))
    agent
  end

  def calls(command = nil)
    lines = File.readlines(File.join(@store, "calls"), chomp: true)
    command ? lines.grep(/\A#{command} /) : lines
  rescue Errno::ENOENT
    []
  end

  # A `put` that reads nothing until `go` is called, so that a dump lasts as long as the test needs.
  WAITING = 'until [ -e "$dir/go" ]; do sleep 0.05; done; cat > "$dir/put.$3"'

  def go
    File.write(File.join(@store, "go"), "")
  end

  # The default is long because the dumper has nice 19: on a busy machine it waits for all others.
  def eventually(what, seconds = 40)
    limit = Diagctl::Clock.now + seconds
    until (value = yield)
      flunk("not within #{seconds} s: #{what}") if Diagctl::Clock.now > limit
      sleep 0.01
    end
    value
  end

  # Asserts that the child has ended and its status was collected.
  def assert_reaped(pid)
    assert_raises(Errno::ECHILD, "child #{pid} is still there") { Process.wait(pid, Process::WNOHANG) }
  end

  # Replaces a method of an object while the block runs. (Minitest 6 has no `stub`.)
  def replacing(object, name, method)
    original = object.method(name)
    object.define_singleton_method(name, &method)
    yield
  ensure
    object.define_singleton_method(name, original)
  end

  # @return [Boolean] whether an unrelated process could take the lease
  def lease_free?
    File.open(File.join(@store, "lease.lock"), "r+") { |file| file.flock(File::LOCK_EX | File::LOCK_NB) == 0 }
  end

  # Runs Ruby code in a separate process.
  #
  # @return [Array(String, Process::Status)] stdout and stderr together
  def ruby(code, env: {}, prefix: [])
    env = { "DIAGCTL_DIR" => @store, "DIAGCTL_ENABLED" => nil, "DIAGCTL_BIN" => nil, "RUBYLIB" => nil }.merge(env)
    # A separate program enforces the limit. A Timeout here would leave a process that hangs running.
    Open3.capture2e(env, "timeout", "--kill-after=1", "30", *prefix, RbConfig.ruby, "-w", "-I#{LIB}", "-rdiagctl",
      stdin_data: code)
  end
end
