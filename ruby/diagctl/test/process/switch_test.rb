# frozen_string_literal: true

require_relative "../helper"

class SwitchTest < Minitest::Test
  NONE = File.join(File::NULL, "diagctl.toml")

  def switch(value, config: nil, file: NONE)
    Diagctl::Switch.new(env: { "DIAGCTL_ENABLED" => value, "DIAGCTL_CONFIG" => config }.compact, config_file: file)
  end

  def test_the_values_of_the_switch
    {
      "1" => true, "true" => true, "0" => false, "false" => false, "yes" => false, "TRUE" => false, nil => false, "" => false
    }.each { |value, on| assert_equal on, switch(value).on?, value.inspect }
  end

  def test_unset_means_on_only_where_there_is_a_configuration
    assert_predicate switch(nil, config: "/some.toml"), :on?
    assert_predicate switch(nil, file: __FILE__), :on?
    refute_predicate switch("0", config: "/some.toml", file: __FILE__), :on?
  end

  def test_a_switch_that_is_off_says_why
    assert_equal "off in this process: DIAGCTL_ENABLED is 0", switch("0").reason
    assert_equal "off in this process: DIAGCTL_ENABLED is not set, and there is no #{NONE}", switch(nil).reason
    assert_nil switch("1").reason
    assert_nil switch("yes").reason, "the warning says it"
  end

  def test_an_invalid_value_is_named
    assert_match(/"yes" is not one of 1, true, 0, false/, switch("yes").warning)
    assert_nil switch("0").warning
    assert_nil switch(nil).warning
  end
end
