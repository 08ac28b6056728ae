# frozen_string_literal: true

require "time"
require_relative "../../e2e/support/e2e"

module E2E
  # `make remote-test` builds it; a release build would take as long as that of diagctl.
  REMOTE_BIN = ENV.fetch("DIAGCTL_TEST_REMOTE", File.join(ROOT, "target/debug/diagctl-remote"))

  # The flows that every kind of remote has.
  module Shipping
    # A capture with one incompressible report of so many bytes.
    def capture(bytes = 1000, name: "blob")
      result = diagctl!("run", "--", "sh", "-c", "head -c #{bytes} /dev/urandom > $DIAGCTL_CAPTURE_DIR/#{name}", deadline: 300)
      result.out.chomp
    end

    # A capture in another store of this machine.
    def capture_in(dir) = diagctl!("run", "--report", "text", "--", "echo", "a capture", env: env(DIAGCTL_DIR: dir)).out.chomp

    # Makes a capture so many days older, and returns its new id.
    def backdate(id, days)
      time = Time.parse(meta(id)["created"]).utc - (days * 86_400)
      older = time.strftime("%Y%m%dT%H%M%S%LZ") + id[19..]
      change_record(id, "id" => older, "created" => time.strftime("%FT%T.%LZ"), "store_ms" => (time.to_f * 1000).to_i)
      File.rename(*[id, older].map { |name| File.join(@store, "reports", name) })
      older
    end

    # Flips a bit of a file; a second time takes it back.
    def flip(path, at) = File.write(path, [File.binread(path, 1, at).ord ^ 1].pack("C"), at)

    # Changes the record of a capture in the store. Without its checksum, a record is one of a version that had none.
    def change_record(id, changes)
      File.write(File.join(@store, "reports", id, "meta.json"), JSON.dump(meta(id).except("check").merge(changes)))
      FileUtils.rm_f(%w[catalog.bin index.jsonl].map { |name| File.join(@store, name) })
    end

    # Cuts the record of a capture in the store, and returns what it was. The index does not know.
    def cut_record(id)
      path = File.join(@store, "reports", id, "meta.json")
      File.binread(path).tap { |record| File.truncate(path, record.bytesize / 2) }
    end

    def ship(*argv, env: shipping_env, **options) = diagctl("ship", *argv, env: env, **options)

    def ship!(...) = ship(...).tap { |result| assert result.ok?, result }

    # Ships within max_bandwidth. The last piece is not waited for.
    def assert_ships_in(seconds)
      began = E2E.clock
      ship!
      assert_operator E2E.clock - began, :>=, seconds
    end

    def shipped?(id) = File.exist?(File.join(@store, "reports", id, "shipped"))

    def file(id, name) = File.binread(File.join(@store, "reports", id, name))

    def remote_list(*argv, env: shipping_env) = diagctl!("list", "--remote", *argv, env: env)

    # Every file of the capture is in the remote, with the same bytes.
    def assert_shipped(id, remote_keys = self.remote_keys)
      assert shipped?(id), "#{id} is not marked"
      of_capture = remote_keys.select { |key| key.include?("/#{id}/") }
      local = Dir.children(File.join(@store, "reports", id)) - %w[shipped pinned]
      assert_equal local.sort, of_capture.map { |key| File.basename(key) }.sort
      of_capture.each { |key| assert file(id, File.basename(key)) == remote_object(key), "#{key} differs" }
      manifests = remote_keys.grep(%r{manifests/}).flat_map { |key| remote_object(key).lines.map { |line| JSON.parse(line) } }
      assert manifests.any? { |entry| entry["id"] == id && entry["host"] == meta(id)["host"] }, "#{id} is in no manifest"
    end
  end
end
