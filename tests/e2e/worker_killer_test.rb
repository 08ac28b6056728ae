# frozen_string_literal: true

require_relative "support/e2e"

# The recipes of docs/worker-killer.md, verbatim. The gems are not to be had here: what they call is.
class WorkerKillerTest < E2E::Case
  LIMIT_MIB = 90

  def test_the_recipe_dumps_first_and_kills_after
    configure(rule("before-the-kill", 'event = { name = "worker_memory_limit" }', %w[threads heap_dump]))
    server = puma(workers: 2, first: recipe("LIMIT").sub("LIMIT = 1_500", "LIMIT = #{LIMIT_MIB}").sub("sleep 10", "sleep 0.1"))
    victim = server.get("/grow?mb=70")[/\d+$/].to_i
    wait_until("it is killed and replaced", tell: server.method(:log)) do
      !E2E::Processes.alive?(victim) && server.workers.size == 2
    end
    assert server.get("/")
    id = wait_for_captures(server).first.fetch("id")
    assert_equal [victim, "before-the-kill"], meta(id).values_at("pid", "rule")
    assert_heap_dump(id, strings: 70 * 1024)
  end

  # The part of puma_worker_killer 1.0.0 that the recipe uses (lib/puma_worker_killer.rb, reaper.rb, puma_memory.rb): the settings, and a
  # thread of the master that calls `pre_term` with Puma's handle of the largest worker, and then its `term`.
  PUMA_WORKER_KILLER = <<~RUBY
    module PumaWorkerKiller
      extend self
      attr_accessor :ram, :rolling_restart_frequency, :pre_term
      def config = yield(self)
      def start
        rss = ->(worker) { File.read("/proc/\#{worker.pid}/status")[/^VmRSS:\\s+(\\d+)/, 1].to_i rescue 0 }
        Thread.new do
          loop do
            sleep 0.1
            master = ObjectSpace.each_object(Puma::Cluster).first or next
            largest = master.instance_variable_get("@workers").select(&:pid).max_by(&rss)
            next if largest.nil? || rss[largest] < #{LIMIT_MIB} * 1024
            @pre_term&.call(largest)
            largest.term
            sleep
          end
        end
      end
    end
  RUBY

  # sidekiq-worker-killer 1.1.0 (lib/sidekiq/worker_killer.rb): after a job, the hook, and a signal from another thread.
  SIDEKIQ_WORKER_KILLER = <<~RUBY
    class Sidekiq::WorkerKiller
      def initialize(options = {}) = @on_shutdown = options.fetch(:on_shutdown, nil)
      def call(worker, job, queue)
        yield
        @on_shutdown.respond_to?(:call) && @on_shutdown.call(worker, job, queue)
        Thread.new { ::Process.kill("SIGKILL", ::Process.pid) }
      end
    end
  RUBY

  def test_the_recipe_for_puma_worker_killer_names_it
    gem("puma_worker_killer", PUMA_WORKER_KILLER)
    server = puma(workers: 2, first: "$LOAD_PATH << #{gems.inspect}\nplugin :diagctl\n#{recipe('PumaWorkerKiller')}", plugin: false)
    wait_until("they poll") { (server.workers - polled).empty? && server.workers.size == 2 }
    victim = server.get("/grow?mb=70")[/\d+$/].to_i
    wait_until("it is replaced", tell: server.method(:log)) { !E2E::Processes.alive?(victim) && server.workers.size == 2 }
    assert_equal [[victim, "by puma_worker_killer", "puma_worker_killer"]], deaths
  end

  def test_the_recipe_for_sidekiq_worker_killer_names_it
    gem("sidekiq/worker_killer", SIDEKIQ_WORKER_KILLER)
    inside = recipe("Sidekiq::WorkerKiller")[/config\.server_middleware.*?^  end\n/m]
    server = sidekiq(server: "$LOAD_PATH << #{gems.inspect}; require 'sidekiq/worker_killer'\n#{inside}")
    wait_until("it polls") { polled.include?(server.pid) }
    redis.push("Touch", File.join(@root, "touched"))
    server.await_end
    assert_equal [[server.pid, "by sidekiq_worker_killer", "sidekiq_worker_killer"]], deaths
  end

  private

  def recipe(name) = File.read(File.join(E2E::ROOT, "docs/worker-killer.md")).scan(/^```ruby\n(.*?)^```/m).flatten.find { |code| code.include?(name) }

  def gems = File.join(@root, "gems")

  def gem(name, code)
    FileUtils.mkdir_p(File.dirname(File.join(gems, name)))
    File.write(File.join(gems, "#{name}.rb"), code)
  end

  def polled
    return [] unless File.exist?(File.join(@store, "FORMAT"))

    diagctl!("status", "--json").json["processes"].map { |process| process["pid"] }
  end

  def deaths = diagctl!("deaths", "--json").json["deaths"].map { |death| death.values_at("pid", "ended", "killer") }
end
