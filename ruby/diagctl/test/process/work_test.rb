# frozen_string_literal: true

require_relative "../helper"
require "diagctl/rack"
require "diagctl/rails/requests"

# The work in progress by name, and nothing else of it.
class WorkTest < Minitest::Test
  include Sandbox

  def setup
    super
    @work = Diagctl::Work.new
  end

  def test_work_is_counted_by_name_while_it_runs
    during = working(["PostsController#index", "PostsController#index", :import]) { @work.counts }
    assert_equal({ "request.running.PostsController#index" => 2, "request.running.import" => 1 }, during)
    assert_empty @work.counts
  end

  def test_work_within_work_is_counted_alone_and_an_exception_ends_it
    inner = nil
    assert_raises(IOError) do
      on("outer") { on("inner") { inner = @work.counts } && raise(IOError) }
    end
    assert_equal({ "request.running.inner" => 1 }, inner)
    assert_empty @work.counts
  end

  # Text that is not a name in the code can hold a value.
  def test_a_name_that_may_hold_a_value_is_not_sent
    ["/users/42?email=a@b.c", "a b=c", "x" * 81, "", "Müller", 42, nil, -> { raise "no" }, -> { {} }].each do |name|
      on(name) { assert_empty @work.counts, name.inspect }
    end
  end

  def test_at_most_ten_names_are_sent_the_most_frequent_first
    names = Array.new(12) { |i| "Job#{i}" } + ["Job11"]
    counts = working(names) { @work.counts }
    assert_equal [10, 2], [counts.size, counts["request.running.Job11"]]
  end

  def test_a_forked_child_has_no_work_of_its_parent
    read, write = IO.pipe
    working(["parent"]) do
      Process.wait(fork { write.write(@work.counts.inspect) || exit!(0) })
    end
    write.close
    assert_equal "{}", read.read
  end

  def test_the_application_names_its_work
    before = Diagctl.work.counts
    during = nil
    assert_equal 7, Diagctl.working_on("Import#csv") { (during = Diagctl.work.counts) && 7 }
    assert_equal 1, during["request.running.Import#csv"]
    assert_equal before, Diagctl.work.counts
  end

  def test_the_middleware_names_the_pattern_of_the_route_that_the_framework_chose
    seen = []
    application = lambda do |env|
      seen << Diagctl.work.counts
      env["sinatra.route"] = "GET /posts/:id"
      seen << Diagctl.work.counts
      [200, {}, []]
    end
    env = { "PATH_INFO" => "/posts/42", "QUERY_STRING" => "token=secret" }
    assert_equal [200, {}, []], Diagctl::Rack.new(application).call(env)
    assert_equal [{}, { "request.running.GET:/posts/:id" => 1 }], seen
    assert_empty Diagctl.work.counts
  end

  # As ActiveSupport::Notifications calls a subscriber that has `start` and `finish`.
  def test_rails_tells_controller_and_action_and_its_parameters_are_not_read
    requests = Diagctl::Requests.new(@work)
    payload = Hash.new { |_, key| raise "read #{key}" }.merge!(controller: "Admin::PostsController", action: "show")
    requests.start("process_action.action_controller", "1", payload)
    assert_equal({ "request.running.Admin::PostsController#show" => 1 }, @work.counts)
    requests.finish("process_action.action_controller", "1", payload)
    assert_empty @work.counts
  end

  def test_a_poll_has_the_work_among_its_gauges
    on = Diagctl.work
    agent = agent(binary(IDLE_ANSWER), adapters: Diagctl::Adapters.new(@config, counts: [on.method(:counts)]))
    Diagctl.working_on("Import#csv") { agent.poll }
    assert_includes calls("acquire").last, "--gauge=request.running.Import#csv=1"
    agent.poll
    refute_includes calls("acquire").last, "running"
  end

  private

  def on(name)
    before = @work.start(name)
    yield
  ensure
    @work.finish(before)
  end

  # Runs the block while as many threads work.
  def working(names)
    ready = Queue.new
    done = Queue.new
    threads = names.map { |name| Thread.new { on(name) { (ready << 1) && done.pop } } }
    names.size.times { ready.pop }
    yield
  ensure
    done.close
    threads.each(&:join)
  end
end
