# frozen_string_literal: true

# The cost of the middleware per job: Sidekiq's own middleware chain around a job that does nothing, with Diagctl's middleware,
# with memory measured as well, and without any middleware. Interleaved, medians of rounds. Writes benches/results/sidekiq.md.
#
#   ruby benches/sidekiq.rb

require_relative "support/machine"
%w[diagctl sidekiq-middleware].each { |gem| $LOAD_PATH.unshift File.expand_path("../ruby/#{gem}/lib", __dir__) }
require "sidekiq"
require "sidekiq/middleware/chain"
require "diagctl/sidekiq"

class SidekiqBench
  RESULT = "sidekiq.md"
  ROUNDS = 301
  JOBS = 2000
  LIMIT = 5.0
  PAYLOAD = { "class" => "Nothing", "jid" => "0123456789abcdef01234567", "queue" => "default", "args" => [1, "two"] }.freeze

  # The cost of any middleware: Sidekiq creates an object for each job and calls it.
  class Empty
    def call(*) = yield
  end

  # Measures as for a job that starts more than Rss::FRESH after the previous one ended.
  class Alone < Diagctl::Sidekiq::Rss
    def recent(now) = bytes(now)
  end

  def run
    chains = { "no middleware" => chain, "a middleware that does nothing" => chain(Empty), "Diagctl's" => chain(diagctl),
               "Diagctl's with job_rss" => chain(diagctl(Diagctl::Sidekiq::Rss)), "Diagctl's with job_rss, after a pause" => chain(diagctl(Alone)) }
    times = chains.transform_values { [] }
    # One warm-up round, then the others. `measure` collects garbage before each round.
    (ROUNDS + 1).times do |round|
      chains.each do |name, chain|
        taken = measure(chain)
        times[name] << taken unless round.zero?
      end
    end
    report(times.transform_values { |list| list.sort[list.size / 2] })
  end

  private

  def chain(*entry)
    Sidekiq::Middleware::Chain.new.tap { |chain| chain.add(*entry.flatten) unless entry.empty? }
  end

  def diagctl(rss = nil)
    jobs = Diagctl::Sidekiq::Jobs.new(Diagctl.log)
    jobs.measure { rss.new } if rss
    [Diagctl::Sidekiq::ServerMiddleware, jobs]
  end

  # Returns microseconds of CPU time per job, which excludes other processes on this machine.
  def measure(chain)
    GC.start(full_mark: false)
    started = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
    JOBS.times { chain.invoke(nil, PAYLOAD, "default") { nil } }
    (Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - started) * 1_000_000 / JOBS
  end

  def report(medians)
    base = medians.fetch("no middleware")
    lines = ["# The cost of the Sidekiq middleware per job", "",
             "`ruby benches/sidekiq.rb`: Sidekiq #{Sidekiq::VERSION}'s own chain around a job that does nothing, #{JOBS} jobs a round, #{ROUNDS} rounds,",
             "interleaved, medians of CPU time. With job_rss a job reads /proc/self/statm when it ends, and one that begins after a pause also then.",
             Bench.machine, "",
             "| in the chain | µs a job | against none |", "|---|---|---|"]
    medians.each { |name, median| lines << format("| %s | %.2f | %+.2f |", name, median, median - base) }
    Bench.write(RESULT, lines)
    # The limit applies to the middleware that everyone installs; job_rss is optional.
    abort "more than #{LIMIT} µs a job" if medians.fetch("Diagctl's") - base > LIMIT
  end
end

SidekiqBench.new.run
