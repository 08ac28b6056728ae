# frozen_string_literal: true

require_relative "../helper"

class GaugesTest < Minitest::Test
  include Sandbox

  def test_gauges_that_are_not_numbers_are_left_out_and_logged_once
    never_shown = Object.new
    never_shown.define_singleton_method(:inspect) { raise "a query, say, or a customer's name" }
    values = { "a.int" => 7, "a.float" => 1.5, "a.rational" => 1r / 4, "b.text" => "7", "b.nan" => Float::NAN, "b.nil" => nil,
               "b.huge" => 10**400, "b.object" => never_shown }
    values.each { |name, value| @config.gauge(name) { value } }
    @config.gauge("b.raises") { raise "no" }
    @agent = agent(binary(IDLE_ANSWER))
    2.times { @agent.poll }
    line = calls("acquire").last
    %w[a.int=7 a.float=1.5 a.rational=0.25].each { |gauge| assert_includes line, "--gauge=#{gauge}" }
    refute_match(/--gauge=b/, line)
    assert_match(/--gauge=gc\.major_count=\d+/, line)
    assert_equal 5, @logger.lines.size, @logger.lines.inspect
    assert_includes @logger.lines, "gauge b.object returned an object of Object, which is not a finite number"
  end
end
