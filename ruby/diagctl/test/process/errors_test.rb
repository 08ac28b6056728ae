# frozen_string_literal: true

require_relative "../helper"

class OneLineTest < Minitest::Test
  def test_foreign_text_becomes_one_bounded_printable_line
    assert_equal "a b ? c", Diagctl.one_line("a\n\tb \xff\x00\u0085c".b)
    assert_equal 401, Diagctl.one_line("x" * 10_000).length
  end
end
