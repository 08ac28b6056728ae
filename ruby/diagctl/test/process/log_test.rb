# frozen_string_literal: true

require_relative "../helper"

class LogTest < Minitest::Test
  include Sandbox

  # Keys can come from the application, for example an event named after a record.
  def test_the_memory_of_logged_keys_is_bounded
    2_000.times { |i| @log.warn_once([:event, i], "event \"record #{i}\" is not a name") }
    assert_equal Diagctl::Log::KEYS, @logger.lines.size
    refute @log.warn_once(:other, "more")
  end
end
