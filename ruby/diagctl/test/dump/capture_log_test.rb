# frozen_string_literal: true

require_relative "../helper"

class CaptureLogTest < Minitest::Test
  include Sandbox

  CAPTURE = "20261122T101530123Z-7f3a9c2e"
  GRANT = Struct.new(:capture, :rule).new(CAPTURE, "heap")

  def record(*outcome, **options)
    Diagctl::CaptureLog.new(@log).record(GRANT, 3.14, Diagctl::Outcome.new(*outcome), **options)
  end

  def test_a_stored_capture_is_logged_and_has_no_reason
    stored = "capture #{CAPTURE} (heap) stored"
    {
      [:exited, 0, "", ""] => "#{stored} after 3.1 s",
      [:exited, 5, "", ""] => "#{stored} in part after 3.1 s; see `diagctl show #{CAPTURE}`",
      [:unknown, nil, "{\"id\":\"#{CAPTURE}\"}", ""] => "#{stored} after 3.1 s"
    }.each do |outcome, line|
      assert_nil record(*outcome), outcome.inspect
      assert_equal line, @logger.lines.last
    end
  end

  def test_a_failed_capture_is_logged_with_the_reason_that_is_returned
    {
      [:exited, 1, "", "disk is full"] => "`diagctl finalize` ended with status 1: disk is full",
      [:unknown, nil, "", ""] => "`diagctl finalize` ended, but other code in this process collected its exit status",
      [:abandoned, "memory ran short", "", ""] => "`diagctl finalize` was killed: memory ran short"
    }.each do |outcome, reason|
      assert_equal reason, record(*outcome)
      assert_equal "capture #{CAPTURE} (heap): #{reason}", @logger.lines.last
    end
    assert_equal "its dumper was killed by SIGKILL after 3.1 s", record(:signaled, 9, "", "", name: "its dumper")
  end
end
