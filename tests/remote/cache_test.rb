# frozen_string_literal: true

require_relative "support/s3_case"
require_relative "support/reading"

module E2E
  # What killed commands leave in the read cache.
  class CacheTest < S3Case
    include Reading

    def setup
      super
      @id = capture
      ship!
      @stalled = true
      faults { |method, target, _| sleep 0.05 while @stalled && method == "GET" && target.include?("blob.bin") }
    end

    def teardown
      @stalled = false
      super
    end

    def test_the_next_command_removes_what_was_killed_and_not_what_another_one_receives
      [%w[INT fetch], %w[TERM verify], %w[KILL fetch]].each do |signal, command|
        killed = stalled(command, "killed")
        kept = leftovers
        Process.kill(signal, -killed)
        Process.wait(killed)
        refute_empty kept, command
        alive = stalled("fetch", "alive", beside: leftovers)
        assert_empty leftovers & kept, "removed after SIG#{signal}, by a command that itself waits"
        held = leftovers
        read!("show", @id)
        assert_equal held, leftovers, "what the command that goes on receives"
        @stalled = false
        assert_predicate Process.wait2(alive).last, :success?
        assert_empty leftovers
        FileUtils.rm_rf(blobs)
        @stalled = true
      end
    end

    private

    def leftovers = Dir.glob(%w[blobs/.tmp-* views/* views/*/reports/*/blob*].map { |name| File.join(cache, "diagctl/remote", name) }).sort

    # A command whose report does not arrive, in a group of its own, as a terminal has it.
    def stalled(command, dir, beside: [])
      argv = command == "fetch" ? [@id, "-o", File.join(@root, "#{dir}-#{rand(1 << 30)}")] : [@id]
      spawn(elsewhere, BIN, command, "--remote", *argv, unsetenv_others: true, pgroup: true, %i[out err] => File::NULL).tap do
        wait_until("#{command} receives the report") { (leftovers - beside).grep(%r{blobs/\.tmp-|/blob}).any? }
      end
    end
  end
end
