# frozen_string_literal: true

require_relative "../helper"

class ProblemLogTest < Minitest::Test
  include Sandbox

  def test_each_problem_is_logged_once_until_it_ends
    problems = Diagctl::ProblemLog.new(@log)
    one = Diagctl::Problem.new(:exited, "pid 12 failed")
    same = Diagctl::Problem.new(:exited, "pid 99 failed")
    other = Diagctl::Problem.new(:timeout, "hangs")
    [one, same, other, one].each { |problem| problems.add(problem, retry_in: 10.0) }
    problems.clear
    problems.clear
    problems.add(one, retry_in: 10.0)
    assert_equal ["pid 12 failed; trying", "hangs; trying again in", "polling works again", "pid 12 failed; trying"],
      @logger.lines.zip([21, 22, 19, 21]).map { |line, length| line[0, length] }
  end
end
