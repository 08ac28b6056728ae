# frozen_string_literal: true

require "digest"
require "zlib"

module E2E
  # Commands with --remote, on a machine that has no store.
  module Reading
    # The environment of a person: no store, and a cache of his own.
    def elsewhere = shipping_env.merge("DIAGCTL_DIR" => File.join(@root, "no-store"), "XDG_CACHE_HOME" => cache)

    def cache = File.join(@root, "cache").tap { |dir| FileUtils.mkdir_p(dir, mode: 0o700) }

    def blobs = Dir[File.join(cache, "diagctl/remote/blobs/*")]

    def read(*argv, env: elsewhere, **options) = diagctl(*argv, "--remote", env: env, **options)

    def read!(...) = read(...).tap { |result| assert result.ok?, result }

    # A capture of a real process with a heap dump and what `diagnose` needs.
    def real_capture
      @script ||= start_script.tap { |script| script.run("module Shop; LIST = Array.new(5000) { Object.new.to_s }; end") }
      diagctl!("request", "heap_dump", "smaps", "gc_stat", "object_counts", "--reason", "a test", "--wait", deadline: 90).out[/\d{8}T\d{9}Z-\h{8}/]
    end

    # Changes the record of a capture in the remote.
    def forge(id)
      key = remote_keys.grep(%r{/#{id}/meta.json}).first
      # Without its checksum, a record is one of a version that had none.
      record = JSON.parse(remote_object(key)).tap { |meta| meta.delete("check") }
      yield record, key
      remote_write(key, JSON.dump(record))
    end

    # Nothing is left of a command.
    def assert_no_view = assert_empty(Dir[File.join(cache, "diagctl/remote/views/*")])
  end
end
