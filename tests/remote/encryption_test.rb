# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"
require_relative "../e2e/support/age"

module E2E
  # Encrypted captures travel as they are: nothing on the way has a key, and a person reads them with one.
  class EncryptedRemoteTest < DirectoryCase
    include Reading

    SECRET = "swordfish-0xa9e5ec2e7"

    def setup
      super
      @age = Age.new(@root, "mine")
      configure(remote: remote_section, encrypt: "recipients = [\"#{@age.recipient}\"]", **WITH_VALUES)
    end

    def test_a_shipped_capture_is_read_with_the_identity_and_not_without
      script = start_script
      script.run("SECRET = #{SECRET.inspect}")
      ids = Array.new(2) { diagctl!("request", "smaps", "gc_stat", "heap_dump", "--reason", "encrypted", "--wait").out.strip }
      ship!
      ids.each { |id| assert_shipped(id) }
      remote_keys.each { |key| refute_includes remote_object(key), SECRET, key }
      assert_read_with_the_identity_alone(*ids)
      assert_includes read!("list").out, "smaps(encrypted)"
      assert_match(/^encrypted +to #{@age.recipient}/, read!("show", ids.last).out)
      assert_predicate read("verify", "--all"), :ok?
      blobs.each { |blob| refute_includes File.binread(blob), SECRET, "the cache has encrypted files only" }
      assert_no_view
    end

    # Whoever may write to the bucket can replace a file, but not make one that passes for whole.
    def test_a_file_that_somebody_cut_off_or_replaced_is_told
      script = start_script
      script.run("SECRET = #{SECRET.inspect}")
      id = diagctl!("request", "gc_stat", "--reason", "encrypted", "--wait").out.strip
      ship!
      key = remote_keys.find { |name| name.end_with?("gc_stat.json.gz.age") }
      whole = remote_object(key)
      [whole[0...-1], whole.sub("X25519", "X25518"), "plain"].each do |data|
        File.binwrite(File.join(@files, key), data)
        told = read("fetch", "#{id}:gc_stat", "-o", "-", "--identity", @age.key)
        refute told.ok?, told
        assert_empty told.out
      end
    end

    private

    def assert_read_with_the_identity_alone(first, last)
      with_key = elsewhere.merge("DIAGCTL_IDENTITY" => @age.key)
      [["fetch", "#{last}:gc_stat", "-o", "-"], ["heap", "top", last], ["heap", "diff", first, last], ["diagnose", last], ["compare", first, last]].each do |command|
        told = read(*command)
        refute told.ok?, told
        assert_match(/encrypted to #{@age.recipient}.*--identity FILE/m, told.err)
        assert_predicate read(*command, env: with_key), :ok?
        assert_predicate read(*command, "--identity", @age.key), :ok?
      end
      assert_includes read("fetch", "#{last}:heap_dump", "-o", "-", env: with_key).out, SECRET
    end
  end
end
