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
    what_grows
    look_around
    fetch_the_dump
    traffic_ends
    why_did_it_die
    stop_puma
    the_answers
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
    verdict = JSON.parse(out).fetch("verdict")
    @sentence = verdict["sentence"]
    expect "it is Ruby's objects" => verdict["cause"] == "retained_objects"
  end

  # A person asks twice, without logging in to the worker. With the dump of the rule that makes three.
  def what_grows
    say "3. What grows, and what keeps it? The worker grows on, and a person asks for two more heap dumps of it."
    @grown = captures.first.fetch("pid")
    2.times do
      grow_on
      command "diagctl request heap_dump --pid #{@grown} --reason 'what grows?' --wait"
    end
    expect "there are three heap dumps of one worker" => captures.map { |capture| capture.values_at("rule", "pid") } ==
                                                         [["on_demand", @grown], ["on_demand", @grown], ["heap-on-growth", @grown]]
    command "diagctl show latest | tail -4"
    out, = Open3.capture2(@env, "diagctl", "show", "latest")
    @leak = out[/^`.*` grew by .*/]
    expect "the sessions of the application are named, with what keeps them" => @leak&.match?(/GrowingApp.* grew by [\d,]+ GrowingApp::Session .* still there in C\./)
  end

  # Whichever worker takes the request: those that the other keeps are none of its growth.
  def grow_on
    20.times do
      show "curl -sS 'http://127.0.0.1:#{@port}/grow?mb=5'"
      answer = get("/grow?mb=5").to_s
      puts answer
      return if answer.end_with?(" #{@grown}\n")
    end
    raise Failed, "no request reached worker #{@grown}"
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

  def traffic_ends
    @traffic.stop
    say "6. Meanwhile #{@traffic.served} requests of other clients were answered, #{@traffic.failed} failed."
    expect "requests were served" => @traffic.served.positive?, "no request failed" => @traffic.failed.zero?
  end

  def why_did_it_die
    say "7. The worker dies. Why?"
    command "kill -9 #{@grown}"
    E2E.wait_until("the master has told how") { deaths.any? { |death| death["ended"] == "killed (SIGKILL)" } }
    command "diagctl deaths"
    expect "it is that worker, with its captures" => deaths.map { |death| [death["pid"], death["captures"].size] } == [[@grown, 3]]
  end

  def stop_puma
    say "8. Puma stops, which is no death."
    E2E::Processes.signal(:TERM, @puma)
    E2E.wait_until("Puma ends") { Process.wait(@puma, Process::WNOHANG) }
    E2E.wait_until("all of its processes end") { E2E::Processes.descendants.empty? }
    expect "nobody else died" => deaths.size == 1
  end

  def the_answers
    say "The answers:"
    puts "Ruby or native?  #{@sentence}", "What grows?      #{@leak}", "Why did it die?  Worker #{@grown} was #{deaths.first['ended']}."
  end

  def deaths
    out, = Open3.capture2(@env, "diagctl", "deaths", "--json", err: File::NULL)
    JSON.parse(out).fetch("deaths")
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
