# frozen_string_literal: true

require_relative "../reporting"

class ThreadsTest < Minitest::Test
  include Reporting

  def test_it_shows_names_and_backtraces_but_no_data
    thread = Thread.new { Thread.current.name = "my worker"; hunted = "hunter2"; sleep; hunted }
    eventually("asleep") { thread.stop? }
    text = report("threads")
    assert_match(/Thread "my worker" tid=\d+ status=sleep priority=0\n  #{Regexp.escape(__FILE__)}:\d+:in [`'](Kernel#)?sleep'/, text)
    assert_match(/Thread "main".*\(took this report\)/, text)
    refute_includes text, "hunter2"
  ensure
    thread&.kill
  end
end
