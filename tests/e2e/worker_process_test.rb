# frozen_string_literal: true

require_relative "support/e2e"

# Processes without HTTP or Sidekiq: a plain loop, and a parent that forks a child for each job, as Resque does.
# docs/other-processes.md shows these programs.
class WorkerProcessTest < E2E::Case
  # The loop of docs/other-processes.md, with work that grows while a file exists.
  LOOP = <<~RUBY
    require "diagctl"
    Diagctl.start(role: "worker", name: "importer")
    stop = false
    trap(:TERM) { stop = true }
    kept = []
    until stop
      kept << ("x" * (1 << 20)) if File.exist?("grow") && kept.size < 100
      sleep 0.01
    end
    puts "ended in order"
  RUBY

  # A parent that starts no thread, and a child that does the work. The child prints its pid.
  FORKING = <<~RUBY
    require "diagctl"
    $stdout.sync = true
    Diagctl.start(role: "worker", name: "parent") if ENV["PARENT_TOO"]
    stop = false
    trap(:TERM) { stop = true }
    until stop
      child = fork do
        trap(:TERM, "DEFAULT")
        puts "started in the parent's child: \#{Diagctl.started?}"
        Diagctl.start(role: "worker", name: "child") if ENV["CHILD_TOO"]
        puts "child \#{Process.pid} \#{Diagctl.started?}"
        sleep 0.02 until File.exist?("go-on")
        exit!
      end
      Process.wait(child)
      sleep 0.05
    end
  RUBY

  def test_a_plain_loop_is_captured_by_rule_and_on_demand_and_ends_at_once
    trigger = 'memory_growth = { baseline = "boot", diff = "60MiB" }'
    configure(rule("grown", trigger, %w[threads gc_stat smaps heap_dump], 'match = { role = "worker", name = "importer" }', 'limits = { max_count = 1, window = "1h" }'))
    start(LOOP)
    wait_for_samples
    File.write(File.join(@root, "grow"), "")
    id = wait_for_captures(self).first.fetch("id")
    assert_equal ["grown", "worker", "importer", @pid], meta(id).values_at("rule", "role", "worker", "pid")
    assert_heap_dump(id)
    diagctl!("request", "heap_dump", "threads", "--role", "worker", "--reason", "on demand", "--wait")
    assert_match(/script.rb/, report("latest", "threads"))
    assert_ends_promptly
    assert_includes log, "ended in order"
    assert_empty log.lines.grep(/diagctl/).grep_v(/stored after/), log
  end

  def test_term_during_a_dump_ends_the_loop_but_not_the_dump
    start("HEAP = Array.new(200_000) { |i| i.to_s * 10 }\n#{LOOP}")
    wait_for_samples
    diagctl!("request", "heap_dump", "--reason", "it is about to end")
    during_a_dump do |dumper, _|
      assert_ends_promptly
      assert E2E::Processes.alive?(dumper)
      assert_empty captures
    end
    assert_heap_dump(wait_for_captures(self).first.fetch("id"), strings: 200_000)
  end

  def test_a_child_has_no_thread_and_no_lease_until_it_starts_diagctl
    start(FORKING, PARENT_TOO: "1")
    child = wait_for_child("false")
    assert_includes log, "started in the parent's child: false"
    diagctl!("request", "heap_dump", "--reason", "of the parent", "--wait")
    assert_equal [@pid, "parent"], captures.first.values_at("pid", "worker")
    refute_holds_lease(child)
  end

  # The child is forked while the parent's dumper works. It must not keep the lease when the dumper is killed.
  def test_a_child_forked_during_a_dump_does_not_hold_the_lease
    start(FORKING, PARENT_TOO: "1")
    first = wait_for_child("false")
    diagctl!("request", "heap_dump", "--reason", "a child comes")
    during_a_dump do |dumper, put|
      E2E::Processes.signal(:KILL, first)
      second = wait_until("another child") { children.find { |pid| pid != first } }
      refute_holds_lease(second)
      E2E::Processes.signal(:KILL, dumper, put)
      wait_until("the dumper is gone") { !E2E::Processes.alive?(dumper) && !E2E::Processes.alive?(put) }
      assert E2E::Processes.alive?(second)
    end
    diagctl!("request", "gc_stat", "--reason", "the lease is free", "--wait")
  end

  def test_a_child_that_starts_diagctl_is_captured_under_its_own_name
    start(FORKING, CHILD_TOO: "1")
    child = wait_for_child("true")
    diagctl!("request", "heap_dump", "--name", "child", "--reason", "of the child", "--wait")
    assert_equal [child, "child"], captures.first.values_at("pid", "worker")
  end

  def log = File.exist?(log_path) ? File.read(log_path) : ""

  private

  def log_path = File.join(@root, "script.log")

  def start(program, **more)
    path = File.join(@root, "script.rb")
    File.write(path, program)
    @pid = Process.spawn(env(RUBYLIB: E2E::PumaServer::LOAD_PATH, **more), RbConfig.ruby, path, chdir: @root, in: :close,
                         %i[out err] => [log_path, "a"], unsetenv_others: true)
  end

  def wait_for_samples
    wait_until("a first poll", tell: method(:log)) { Dir.exist?(File.join(@store, "samples")) && !Dir.empty?(File.join(@store, "samples")) }
  end

  def children = log.scan(/^child (\d+)/).flatten.map(&:to_i)

  def wait_for_child(started)
    wait_until("a child", tell: method(:log)) { log[/^child (\d+) #{started}$/, 1] }.to_i
  end

  def refute_holds_lease(pid)
    open_files = Dir.glob("/proc/#{pid}/fd/*").filter_map { |fd| File.readlink(fd) rescue nil }
    refute_empty open_files
    refute_includes open_files, File.join(@store, "lease.lock")
  end

  def assert_ends_promptly
    E2E::Processes.signal(:TERM, @pid)
    wait_until("it ends", deadline: 10, tell: method(:log)) { E2E::Processes.reap.then { !E2E::Processes.alive?(@pid) } }
  end
end
