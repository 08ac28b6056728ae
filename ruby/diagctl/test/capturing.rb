# frozen_string_literal: true

require_relative "helper"

# A capture from the grant to its end, with a program that stands in for the binary.
module Capturing
  include Sandbox

  CAPTURE = "20261122T101530123Z-7f3a9c2e"

  def teardown
    # Every child must be reaped by the code under test.
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

  def put(name)
    File.binread(File.join(@store, "put.#{name}"))
  end
end
