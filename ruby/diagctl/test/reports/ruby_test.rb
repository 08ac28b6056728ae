# frozen_string_literal: true

require_relative "../reporting"

class RubyTest < Minitest::Test
  include Reporting

  def test_it_lists_environment_variables_without_their_values
    ENV["DIAGCTL_TEST_SECRET"] = "hunter2"
    text = report("ruby")
    assert_includes JSON.parse(text)["environment_names"], "DIAGCTL_TEST_SECRET"
    refute_includes text, "hunter2"
    assert_operator JSON.parse(text)["uptime_seconds"], :>=, 0
  ensure
    ENV.delete("DIAGCTL_TEST_SECRET")
  end

  # A title may contain the name of a directory, which can have any bytes.
  def test_it_is_json_whatever_the_title_of_the_process
    before = $PROGRAM_NAME
    $PROGRAM_NAME = "puma [caf\xE9]"
    assert_equal "puma [caf?]", JSON.parse(report("ruby"))["title"]
  ensure
    $PROGRAM_NAME = before
  end
end
