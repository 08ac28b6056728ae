# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"

module E2E
  # A manifest with lines that are cut or changed.
  class DamagedManifestTest < DirectoryCase
    include Reading

    def test_a_damaged_manifest_is_named_with_the_command_that_restores_it
      ids = [capture, capture].sort
      ship!
      key = remote_keys.grep(%r{^manifests/}).first
      path = File.join(@files, key)
      File.truncate(path, File.size(path) - 20)
      results = [%w[list -q], %w[verify --all], %w[gc --max-age 90d --dry-run]].map { |command| read!(*command) }
      results.each do |result|
        assert_match(/skipped a damaged line of #{key}: captures may be missing/, result.err)
        assert_match(/^  hint: the store of \S+ has a copy of its last 40 days: `cp .*` there restores it/, result.err)
      end
      assert_equal 1, results.first.out.lines.size
      assert system(results.first.err[/`(cp [^`]*)`/, 1].sub("STORE", @store))
      whole = read!("list", "-q")
      assert_equal ids, whole.out.split.sort
      refute_match(/damaged|hint/, whole.err)
    end

    def test_a_manifest_that_cannot_be_read_is_named_with_a_next_step
      capture
      ship!
      large = File.join(@files, File.dirname(remote_keys.grep(%r{^manifests/}).first), "web-8~00000000.jsonl")
      FileUtils.touch(large)
      File.truncate(large, (16 << 20) + 1)
      assert_match(/skipped a manifest: .*web-8.*\n  hint: restore the object from its archive/, read!("list").err)
    end
  end
end
