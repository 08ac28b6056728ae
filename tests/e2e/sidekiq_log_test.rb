# frozen_string_literal: true

require_relative "support/e2e"

# With diagctl, Sidekiq's log contains nothing new except lines from diagctl: no warning from Sidekiq or Ruby.
class SidekiqLogTest < E2E::Case
  # These lines depend on whether a thread is busy when Sidekiq is told to stop.
  CHANCE = [/Pausing to allow jobs to finish/, /Terminating N busy threads/].freeze

  def test_diagctl_adds_only_its_own_lines_to_the_log
    without = lines(serve(plain: true, name: "without"))
    server = serve(name: "with") do
      diagctl!("request", "sidekiq", "threads", "heap_dump", "object_counts", "--reason", "all that it can do", "--wait")
    end
    own, with = lines(server).partition { |line| line.include?("[diagctl]") }
    assert_empty with - without - CHANCE.flat_map { |line| with.grep(line) }
    own.each { |line| assert_match(/\[diagctl\] capture \S+ \(on_demand\) stored/, line) }
  end

  # Everything that a job and a capture load or call, in a Ruby that tells all it minds.
  def test_ruby_warns_of_nothing_that_it_does_not_warn_of_without
    minding = { env: env(RUBYOPT: "-w -W:deprecated -W:experimental"), head: "def twice = 1\ndef twice = 2" }
    without = serve(plain: true, name: "without", **minding)
    with = serve(name: "with", install: "job_rss: true, queue_latency: true", **minding) do
      diagctl!("request", "sidekiq", "threads", "gc_stat", "ruby", "heap_dump", "object_counts", "--reason", "all that it can do", "--wait")
    end
    without, with = [without, with].map { |server| lines(server).grep(/warning/).map { |line| line.sub(%r{/with(out)?\.rb}, "/app.rb") } }
    refute_empty without.grep(/method redefined; discarding old twice/), "this Ruby warns of nothing"
    assert_empty with - without
  end

  private

  # Runs one job from start to end.
  def serve(**options)
    server = sidekiq(**options)
    done = File.join(@root, "#{options[:name]}-done")
    redis.push("Touch", done)
    wait_until("the job is done", tell: server.method(:log)) { File.exist?(done) && server.log.match?(/ done$/) }
    yield if block_given?
    server.tap(&:stop)
  end

  # Returns the log without parts that differ between starts, sorted because threads log in any order.
  def lines(server)
    server.log.gsub(/([jt]id=)\w+/, '\1').gsub(/\d+/, "N").lines(chomp: true).sort
  end
end
