# frozen_string_literal: true

require_relative "support/s3_case"
require_relative "support/reading"

module E2E
  # Manifests that the credentials may not read.
  class UnreadableManifestTest < S3Case
    include Reading

    def test_a_manifest_that_cannot_be_read_is_skipped_and_named_and_gc_deletes_nothing
      ids = [capture]
      ship!
      @store = File.join(@root, "another-store")
      ids << capture
      ship!
      first, second = remote_keys.grep(/manifests/).sort_by { |key| remote_object(key).include?(ids[0]) ? 0 : 1 }
      before = remote_keys
      faults { |method, target, _| 403 if method == "GET" && target.include?(first) }
      result = read!("list", "-q")
      assert_equal [ids[1]], result.out.split
      assert_match(/skipped a manifest: cannot read #{first.delete_prefix("fleet/")}/, result.err)
      result = read!("verify", "--all")
      assert_match(/verified 1 capture.*intact/, result.out)
      assert_match(/skipped a manifest: .*#{first.delete_prefix("fleet/")}/, result.err)
      [%w[--dry-run], []].each do |more|
        result = read("gc", "--max-use", "1B", *more)
        assert_equal 1, result.status
        assert_match(/nothing was deleted: 1 manifest cannot be read.*#{first.delete_prefix("fleet/")}.*hint: restore/m, result.err)
      end
      assert_equal before, remote_keys
      @proxy.stop
      faults { |method, target, _| 403 if method == "GET" && [first, second].any? { |key| target.include?(key) } }
      result = read("list")
      assert_equal 1, result.status, result
      assert_match(/cannot read manifests.*hint: the credentials may not do this/m, result.err)
    end
  end
end
