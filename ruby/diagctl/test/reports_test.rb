# frozen_string_literal: true

require_relative "reporting"

class ReportsTest < Minitest::Test
  include Reporting

  def test_an_unknown_report_is_unavailable
    assert_equal "not available in this process", assert_raises(Diagctl::Unavailable) { report("nope") }.message
  end
end
