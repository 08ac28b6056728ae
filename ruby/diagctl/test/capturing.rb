# frozen_string_literal: true

require_relative "helper"

# A capture from the grant to its end, with a script in place of the diagctl program.
module Capturing
  include Sandbox

  CAPTURE = "20261122T101530123Z-7f3a9c2e"

  # A `put` that starts reading long after the pipe is full.
  SLOW_READER = 'sleep 0.5; cat > "$dir/put.$3"'

  def teardown
    # The code under test must reap every child.
    eventually("the dumper ends") { !@agent.busy? } if @agent
    super
  end

  def capture(...)
    @agent = agent(granting_binary(...))
    @agent.poll
  end

  def finalize_line
    eventually("finalize") { calls("finalize").first }
  end

  # Runs the block while a process receives the signals that Ruby handles, a hundred times a second. Another process sends them,
  # because a thread of this one would wait for the GVL.
  def with_signals(pid = Process.pid)
    before = Signal.trap("USR2") { nil }
    sender = spawn("ruby", "-e", "loop { Process.kill(:CHLD, #{pid}); Process.kill(:CONT, #{pid}); #{"Process.kill(:USR2, #{pid});" if pid == Process.pid} sleep 0.01 }",
      err: File::NULL)
    yield
  ensure
    Process.kill(:KILL, sender)
    Process.wait(sender)
    Signal.trap("USR2", before || "DEFAULT")
  end

  def assert_whole_dump
    refute_match(/--failed/, finalize_line)
    assert_operator each_line_of_the_dump.count { |line| JSON.parse(line) }, :>, 1000
  end

  # One at a time: a dump that is held in memory is part of every later dump of this process.
  def each_line_of_the_dump(&) = File.foreach(put_path("heap_dump"), encoding: Encoding::BINARY, &)

  def put(name) = File.binread(put_path(name))

  def put_path(name) = File.join(@store, "put.#{name}")
end
