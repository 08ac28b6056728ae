# frozen_string_literal: true

require_relative "support/e2e"

# The recipe of docs/worker-killer.md, verbatim.
class WorkerKillerTest < E2E::Case
  LIMIT_MIB = 90

  def test_the_recipe_dumps_first_and_kills_after
    configure(rule("before-the-kill", 'event = { name = "worker_memory_limit" }', %w[threads heap_dump]))
    recipe = File.read(File.join(E2E::ROOT, "docs/worker-killer.md"))[/^```ruby\n(.*?)^```/m, 1]
    server = puma(workers: 2, first: recipe.sub("LIMIT = 1_500", "LIMIT = #{LIMIT_MIB}").sub("sleep 10", "sleep 0.1"))
    victim = server.get("/grow?mb=70")[/\d+$/].to_i
    wait_until("it is killed and replaced", tell: server.method(:log)) do
      !E2E::Processes.alive?(victim) && server.workers.size == 2
    end
    assert server.get("/")
    id = wait_for_captures(server).first.fetch("id")
    assert_equal [victim, "before-the-kill"], meta(id).values_at("pid", "rule")
    assert_heap_dump(id, strings: 70 * 1024)
  end
end
