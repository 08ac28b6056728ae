# frozen_string_literal: true

require_relative "../reporting"

class RubyTest < Minitest::Test
  include Reporting

  def test_ruby_names_environment_variables_and_never_their_values
    ENV["DIAGCTL_TEST_SECRET"] = "hunter2"
    text = report("ruby")
    assert_includes JSON.parse(text)["environment_names"], "DIAGCTL_TEST_SECRET"
    refute_includes text, "hunter2"
    assert_operator JSON.parse(text)["uptime_seconds"], :>=, 0
  ensure
    ENV.delete("DIAGCTL_TEST_SECRET")
  end

  # A title holds the name of a directory, whose bytes are anybody's.
  def test_ruby_is_json_whatever_the_process_calls_itself
    before = $PROGRAM_NAME
    $PROGRAM_NAME = "puma [caf\xE9]"
    assert_equal "puma [caf?]", JSON.parse(report("ruby"))["title"]
  ensure
    $PROGRAM_NAME = before
  end
end
