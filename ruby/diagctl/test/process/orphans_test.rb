# frozen_string_literal: true

require_relative "../helper"

module Diagctl
  class OrphansTest < Minitest::Test
    # The pid of the first process is given, because a test is none.
    def test_only_what_follows_a_capture_is_reaped
      follower, other = [NAME, "someone-else"].map { |name| zombie(name) }
      Orphans.reap(1)
      assert_raises(Errno::ECHILD) { Process.wait(follower) }
      assert_equal other, Process.wait(other)
    end

    def test_a_process_that_is_not_the_first_reaps_nothing
      follower = zombie(NAME)
      Orphans.reap
      assert_equal follower, Process.wait(follower)
    end

    NAME = "diagctl-after"
    private_constant :NAME

    private

    # Its name is that of its main thread.
    def zombie(name)
      pid = fork do
        File.write("/proc/self/comm", name)
        exit!(0)
      end
      sleep 0.001 until File.read("/proc/#{pid}/stat").include?(") Z ")
      pid
    end
  end
end
