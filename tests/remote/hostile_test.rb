# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"

module E2E
  # The remote holds what no diagctl has written: nothing of it is believed.
  class HostileTest < DirectoryCase
    include Reading

    def setup
      super
      @id = capture
      ship!
    end

    def remote_write(key, content) = File.binwrite(File.join(@files, key), content)

    def assert_refused(reason, *command, status: 1)
      result = read(*command)
      assert_equal status, result.status, result
      assert_match reason, result.err
      assert_empty blobs, "nothing is kept"
      assert_no_view
      refute File.exist?(File.join(@root, "out"))
    end

    def fetch(reason) = assert_refused(reason, "fetch", @id, "-o", File.join(@root, "out"))

    def test_other_bytes_than_those_of_the_record
      key = remote_keys.grep(/blob/).first
      whole = remote_object(key)
      remote_write(key, whole.dup.tap { |bytes| bytes.setbyte(bytes.size / 2, bytes.getbyte(bytes.size / 2) ^ 1) })
      fetch(/blob.bin.gz in the remote cannot be trusted, and nothing of it was kept: it has sha256/)
      assert_match(/damaged  #{@id} blob.bin.gz/, read("verify", @id).out)
      remote_write(key, whole[0, 50])
      fetch(/it has 50 bytes, \d+ were recorded/)
      remote_write(key, whole + ("x" * 10_000_000))
      fetch(/it has more than the \d+ bytes that were recorded/)
      assert_match(/1 damaged/, read("verify", "--all").out)
      File.delete(File.join(@files, key))
      fetch(/blob.bin.gz is missing in the remote; the record of its capture is there/)
      assert_equal 1, read("verify", @id).status
    end

    def test_a_file_that_inflates_without_end
      bomb = StringIO.new.tap { |io| Zlib::GzipWriter.wrap(io) { |gz| 300.times { gz.write("\0" * (1 << 20)) } } }.string
      key = remote_keys.grep(/blob/).first
      remote_write(key, bomb)
      claim = lambda do |raw|
        forge(@id) do |meta|
          meta["reports"][0].merge!("raw_bytes" => raw, "stored_bytes" => bomb.bytesize, "sha256" => Digest::SHA256.hexdigest(bomb))
        end
      end
      claim.call(1000)
      result = read("fetch", @id, "-o", File.join(@root, "out"))
      refute result.ok?
      assert_includes result.err, "decompresses to more than the 1000 bytes that were recorded"
      assert_empty Dir[File.join(@root, "out/*blob*")]
      FileUtils.rm_rf(blobs + [File.join(@root, "out")])
      claim.call(1 << 43)
      fetch(/report blob claims that \d+ bytes decompress to 8796093022208/)
    end

    def test_records_that_lie
      forgeries = {
        /out of range/ => ->(meta) { meta["reports"][0]["stored_bytes"] = 1 << 60 },
        / are needed, \S+ TiB for files and 256.0 MiB that stay free; .* are free/ => ->(meta) { meta["reports"][0]["stored_bytes"] = 1 << 43 },
        /does not name a plain file/ => ->(meta) { meta["reports"][0]["file"] = "../../../../escaped" },
        /has the file meta.json/ => ->(meta) { meta["reports"][0]["file"] = "meta.json" },
        /two reports name blob.bin.gz/ => ->(meta) { meta["reports"] *= 2 },
        /has no checksum/ => ->(meta) { meta["reports"][0]["sha256"] = "../../x" },
        /it describes capture/ => ->(meta) { meta["id"] = "20260101T000000000Z-aaaaaaaa" },
        /it describes a capture of other at/ => ->(meta) { meta["host"] = "other" },
        /meta.json in the remote cannot be trusted/ => ->(meta) { meta["reports"] = "x" }
      }
      original = remote_object(remote_keys.grep(/meta.json/).first)
      forgeries.each do |reason, change|
        remote_write(remote_keys.grep(/meta.json/).first, original)
        forge(@id) { |meta, _| change.call(meta) }
        fetch(reason)
      end
      remote_write(remote_keys.grep(/meta.json/).first, "[" * 5_000_000)
      fetch(/has more than 4194304 bytes/)
    end

    def test_a_record_of_a_newer_version_is_neither_damaged_nor_a_lie
      forge(@id) { |meta, _| meta["schema"] = 99 }
      out = File.join(@root, "out")
      [["show", @id], ["fetch", @id, "-o", out]].each do |command|
        assert_refused(/meta.json in the remote has version 99; .*hint: a newer diagctl wrote it; use that version/m, *command, status: 6)
      end
      [@id, "--all"].each do |what|
        result = read("verify", what)
        assert_equal 6, result.status, result
        assert_match(/^newer    #{@id}: a newer diagctl wrote it; use that version$/, result.out)
        refute_match(/damaged|trusted/, result.out + result.err)
      end
    end

    def test_verify_goes_on_after_a_capture_that_cannot_be_fetched
      second = capture
      ship!
      key = remote_keys.grep(%r{/#{@id}/meta.json}).first
      original = remote_object(key)
      forgeries = {
        /meta.json: it describes a capture of db-1 at \S+$/ => ->(meta) { meta["host"] = "db-1" },
        /meta.json: it describes a capture of \S+ at 2020-01-01T00:00:00.000Z$/ => ->(meta) { meta["created"] = "2020-01-01T00:00:00.000Z" },
        /meta.json: it describes capture 20200101T000000000Z-aaaaaaaa$/ => ->(meta) { meta["id"] = "20200101T000000000Z-aaaaaaaa" },
        /meta.json: two reports name blob.bin.gz$/ => ->(meta) { meta["reports"] *= 5000 },
        /blob.bin.gz: it has \d+ bytes, #{1 << 43} were recorded$/ => ->(meta) { meta["reports"][0]["stored_bytes"] = 1 << 43 },
        /x{300}: report blob has a file whose name has 300 bytes$/ => ->(meta) { meta["reports"][0]["file"] = "x" * 300 },
        /blob.bin.gz: report blob has no checksum$/ => ->(meta) { meta["reports"][0]["sha256"] = "x" }
      }
      forgeries.each do |reason, change|
        remote_write(key, original)
        forge(@id) { |meta, _| change.call(meta) }
        assert_damaged(/^damaged  #{@id} #{reason}/)
      end
      fetch(/has no checksum/)
      remote_write(key, " " * 5_000_000)
      assert_damaged(/^damaged  #{@id} meta.json: .* has more than 4194304 bytes, so it was not read$/)
      remote_write(key, original)
      blob = File.join(@files, remote_keys.grep(%r{/#{@id}/blob}).first)
      File.delete(blob)
      File.mkfifo(blob)
      assert_damaged(/^damaged  #{@id} blob.bin.gz: cannot read .*: it is not a regular file$/)
      read!("verify", second)
    end

    # The other capture is intact.
    def assert_damaged(reason)
      result = read("verify", "--all")
      assert_equal 1, result.status, result
      assert_match(reason, result.out)
      assert_match(/^verified 2 captures: 1 file .*intact, 1 damaged$/, result.out)
      assert_empty result.err
    end

    def test_a_manifest_that_names_another_place_and_a_link_out_of_the_remote
      manifest = remote_keys.grep(/manifests/).first
      line = JSON.parse(remote_object(manifest).lines.first)
      remote_write(manifest, "#{JSON.dump(line.merge("host" => "../../../../etc"))}\n#{JSON.dump(line.merge("id" => "../../etc"))}\n")
      assert_refused(/is not in the remote/, "fetch", @id, "-o", File.join(@root, "out"), status: 4)
      remote_write(manifest, "#{JSON.dump(line)}\n")
      blob = File.join(@files, remote_keys.grep(/blob/).first)
      File.delete(blob)
      File.symlink("/etc/passwd", blob)
      fetch(/cannot read/)
      File.delete(blob)
      File.mkfifo(blob)
      fetch(/not a regular file/)
    end

    def test_a_line_with_another_time_than_its_id_hides_no_capture
      line = JSON.parse(remote_object(remote_keys.grep(/manifests/).first).lines.first)
      FileUtils.mkdir_p(File.join(@files, "manifests/2020-01-01"))
      remote_write("manifests/2020-01-01/zz~1.jsonl", "#{JSON.dump(line.merge("created" => "2020-01-01T00:00:00.000Z"))}\n")
      assert_equal [[@id, line["created"]]], read!("list", "--json").json["captures"].map { |capture| capture.values_at("id", "created") }
      read!("show", @id)
    end

    def test_a_cache_that_others_can_read_is_not_used
      FileUtils.mkdir_p(File.join(cache, "diagctl", "remote"), mode: 0o755)
      File.chmod(0o755, File.join(cache, "diagctl", "remote"))
      result = read("show", @id)
      assert_equal 1, result.status
      assert_match(/others may use it \(mode 0755\).*hint: set XDG_CACHE_HOME/m, result.err)
    end
  end
end
