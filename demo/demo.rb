# frozen_string_literal: true

require "fileutils"
require "json"
require "open3"
require "tmpdir"
require_relative "../tests/e2e/support/processes"
require_relative "../tests/e2e/support/traffic"

# `make demo`: a real Puma cluster collects its own diagnostic reports while it serves requests. Prints a session as a person at
# a shell would see it, and exits non-zero if any step fails.
class Demo
  ROOT = File.expand_path("..", __dir__)
  BINARY = ENV.fetch("DIAGCTL_TEST_BIN", File.join(ROOT, "target/release/diagctl"))
  LIMIT = 150 * 1024 * 1024

  Failed = Class.new(StandardError)

  def initialize
    @dir = Dir.mktmpdir("diagctl-demo-")
    @store = File.join(@dir, "store")
    @log = File.join(@dir, "puma.log")
    @env = {
      "PATH" => "#{File.dirname(BINARY)}:#{ENV.fetch('PATH')}",
      "RUBYLIB" => %w[diagctl puma-plugin].map { |gem| File.join(ROOT, "ruby", gem, "lib") }.join(":"),
      "DIAGCTL_ENABLED" => "1", "DIAGCTL_DIR" => @store, "DIAGCTL_CONFIG" => File.join(__dir__, "diagctl.toml"),
      "DIAGCTL_BIN" => nil, "DIAGCTL_LOG" => nil
    }
  end

  def run
    started = E2E.clock
    start_puma
    @traffic = E2E::Traffic.new(self)
    memory_grows
    why_so_large
    someone_asks
    look_around
    fetch_the_dump
    stop_puma
    puts "", "It all happened, in #{(E2E.clock - started).round} s. Nothing is left running."
  rescue Failed, E2E::TooLate => error
    @keep = true
    warn "", "demo failed: #{error.message}", "--- the log of Puma ---", File.read(@log), "(everything is kept in #{@dir})"
    exit 1
  ensure
    E2E::Processes.sweep
    FileUtils.rm_rf(@dir) unless @keep
  end

  # Sends one request of the background traffic. Returns the page, or nil.
  def get(path)
    page, status = Open3.capture2("curl", "-sf", "-m", "30", "http://127.0.0.1:#{@port}#{path}")
    page if status.success?
  end

  private

  def start_puma
    say "A Puma cluster with two workers, under jemalloc. The only line about diagctl is `plugin :diagctl`."
    show "grep -v '^#' demo/puma.rb"
    system("grep", "-v", "^#", "puma.rb", chdir: __dir__)
    show "export DIAGCTL_ENABLED=1 DIAGCTL_DIR=#{@store} DIAGCTL_CONFIG=demo/diagctl.toml",
         "LD_PRELOAD=libjemalloc.so.2 puma -C demo/puma.rb &"
    @puma = Process.spawn(@env.merge("LD_PRELOAD" => "libjemalloc.so.2"), "puma", "-C", File.join(__dir__, "puma.rb"),
                          in: :close, %i[out err] => @log, pgroup: true)
    E2E.wait_until("two workers have booted") do
      raise Failed, "Puma ended" unless E2E::Processes.alive?(@puma)

      @workers = File.read(@log).scan(/Worker \d+ \(PID: (\d+)\) booted/).flatten.map(&:to_i)
      @workers.size == 2
    end
    @port = File.read(@log)[%r{Listening on http://127\.0\.0\.1:(\d+)}, 1]
    puts File.readlines(@log).grep(/Worker|Listening|workers/i)
  end

  def memory_grows
    say "1. Memory grows while other clients are served. The rule heap-on-growth waits for 150 MiB for 2 s."
    8.times do
      command "curl -sS 'http://127.0.0.1:#{@port}/grow?mb=40'"
      break if @workers.any? { |pid| E2E::Processes.status(pid, "VmRSS") * 1024 > LIMIT }
    end
    E2E.wait_until("the capture that the rule asked for", every: 0.2) { captures.any? }
    command "diagctl list"
    expect "the rule fired" => captures.first.fetch("rule") == "heap-on-growth"
  end

  def why_so_large
    say "2. Is it Ruby or native memory?"
    command "diagctl diagnose"
    out, = Open3.capture2(@env, "diagctl", "diagnose", "--json")
    expect "it is Ruby's objects" => JSON.parse(out).dig("verdict", "cause") == "retained_objects"
  end

  def someone_asks
    say "3. A person asks for another heap dump of that worker, without logging in to it."
    grown = captures.first.fetch("pid")
    command "diagctl request heap_dump --pid #{grown} --reason 'does it still grow?' --wait"
    expect "a second capture is there, of the same worker" => captures.map { |capture| capture.values_at("rule", "pid") } ==
                                                              [["on_demand", grown], ["heap-on-growth", grown]]
  end

  def look_around
    say "4. What there is now."
    command "diagctl list"
    command "diagctl show latest"
    command "diagctl status"
    command "grep diagctl #{@log}"
  end

  def fetch_the_dump
    say "5. What keeps the memory of the worker that grew. Its dump, checked against its sha256, for other tools."
    path = File.join(@dir, "heap.json")
    id = captures.find { |capture| capture["rule"] == "heap-on-growth" }.fetch("id")
    command "diagctl heap retained #{id} -n 5"
    command "diagctl fetch #{id}:heap_dump --as json -o #{path}"
    command "head -n 3 #{path} | cut -c 1-110"
    lines = File.foreach(path)
    first = lines.first(3).map { |line| JSON.parse(line) }
    expect "its lines are objects of a Ruby heap" => first.size == 3 && first.all? { |object| object.key?("type") },
           "the strings of the sessions that were kept are in it" => lines.count { |line| line.include?('"type":"STRING"') } > 1000,
           "what the strings say is not" => lines.none? { |line| line.include?("lorem ipsum") }
  end

  def stop_puma
    @traffic.stop
    say "6. Meanwhile #{@traffic.served} requests of other clients were answered, #{@traffic.failed} failed. Puma stops."
    E2E::Processes.signal(:TERM, @puma)
    E2E.wait_until("Puma ends") { Process.wait(@puma, Process::WNOHANG) }
    E2E.wait_until("all of its processes end") { E2E::Processes.descendants.empty? }
    expect "requests were served" => @traffic.served.positive?, "no request failed" => @traffic.failed.zero?
  end

  def captures
    out, _, status = Open3.capture3(@env, "diagctl", "list", "--json")
    status.success? ? JSON.parse(out).fetch("captures") : []
  end

  def say(text) = puts("", "# #{text}")

  def show(*lines) = puts(lines.map { |line| "$ #{line}" })

  def command(line)
    show line
    $stdout.flush
    raise Failed, "#{line} ended with #{$?.exitstatus}" unless system(@env, "bash", "-o", "pipefail", "-c", line, err: :out)
  end

  def expect(facts)
    facts.each { |fact, holds| raise Failed, "not so: #{fact}" unless holds }
  end
end

$stdout.sync = true
Encoding.default_external = Encoding::UTF_8 # even if no locale is set
%w[INT TERM].each { |name| Signal.trap(name) { exit 130 } }
E2E::Processes.become_subreaper
Demo.new.run
