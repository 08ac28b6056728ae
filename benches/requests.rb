# frozen_string_literal: true

# The cost of naming a request: CPU time of the thread per request, through the middleware, `Diagctl.working_on` and the subscriber
# that Rails calls, less that of an empty application; and what a poll pays to count them. Medians. Writes benches/results/requests.md.
#
#   ruby benches/requests.rb

require_relative "support/machine"
$LOAD_PATH.unshift File.expand_path("../ruby/diagctl/lib", __dir__)
require "diagctl"
require "diagctl/rack"
require "diagctl/rails/requests"

class RequestsBench
  RESULT = "requests.md"
  ROUNDS = 21
  REQUESTS = 100_000
  PAYLOAD = { controller: "Admin::PostsController", action: "index" }.freeze

  def run
    application = ->(_env) { [200, {}, []] }
    env = { "sinatra.route" => "GET /posts/:id" }
    rack = Diagctl::Rack.new(application)
    rails = Diagctl::Requests.new(Diagctl.work)
    ways = {
      nothing: -> { application.call(env) },
      "`Diagctl::Rack`" => -> { rack.call(env) },
      "`Diagctl.working_on`" => -> { Diagctl.working_on("Import#csv") { application.call(env) } },
      "the subscriber of Rails" => lambda {
        rails.start("", "", PAYLOAD)
        application.call(env)
        rails.finish("", "", PAYLOAD)
      }
    }
    costs = ways.transform_values { |way| median { cpu { REQUESTS.times { way.call } } / REQUESTS } }
    report(costs, idle: poll, busy: with_five { poll })
  end

  private

  def poll = median { cpu { REQUESTS.times { Diagctl.work.counts } } / REQUESTS }

  def with_five
    done = Queue.new
    ready = Queue.new
    threads = Array.new(5) { |i| Thread.new { Diagctl.working_on("Controller#{i % 3}#index") { (ready << 1) && done.pop } } }
    5.times { ready.pop }
    yield
  ensure
    done.close
    threads.each(&:join)
  end

  def median
    GC.start
    Array.new(ROUNDS) { yield }.sort[ROUNDS / 2]
  end

  def cpu
    start = Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID)
    yield
    Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID) - start
  end

  def report(costs, idle:, busy:)
    micro = ->(seconds) { format("%.2f µs", seconds * 1e6) }
    rows = costs.except(:nothing).map { |way, cost| "| #{way} | #{micro[cost - costs[:nothing]]} |" }
    Bench.write(RESULT, [
      "# Requests in progress", "", Bench.machine, "", "| | CPU time |", "|---|---|", *rows,
      "| a poll, no request in progress | #{micro[idle]} |", "| a poll, five requests in progress | #{micro[busy]} |"
    ])
  end
end

RequestsBench.new.run
