# frozen_string_literal: true

require_relative "../helper"

class LogTest < Minitest::Test
  include Sandbox

  # Keys can come from the application: an event that is named after a record, say.
  def test_what_is_said_once_does_not_grow_without_end
    2_000.times { |i| @log.warn_once([:event, i], "event \"record #{i}\" is not a name") }
    assert_equal Diagctl::Log::KEYS, @logger.lines.size
    refute @log.warn_once(:other, "more")
  end
end
