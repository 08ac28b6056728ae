# frozen_string_literal: true

require "digest"
require_relative "support/e2e"

# `verify` finds captures that differ from what was acknowledged, names them, and changes nothing.
class VerifyTest < E2E::Case
  def setup
    super
    configure(**WITH_VALUES)
    @whole = store_capture("gc_stat" => "{}", "heap_dump" => E2E.dump(Random.bytes(300_000)))
    @id = store_capture("gc_stat" => "{}", "heap_dump" => E2E.dump(Random.bytes(300_000)))
    @report = meta(@id).fetch("reports").find { |report| report["name"] == "heap_dump" }
    @dir = File.join(@store, "reports", @id)
    @file = File.join(@dir, @report["file"])
  end

  def test_undamaged_captures_pass
    result = diagctl!("verify", "--all")
    assert_match(/verified 2 captures: 4 files \(.*\) intact/, result.out)
    report = diagctl!("verify", "latest", @whole, "--json").json
    assert_equal [1, true, 2, 4, [], [], []], report.values_at("schema", "ok", "captures", "files", "damaged", "unknown", "gone")
    diagctl!("pin", @id)
    assert_empty diagctl!("verify", "--all", "--json").json["unknown"], "the marker of a pin"
  end

  def test_flipped_bit_names_both_digests
    bytes = File.binread(@file)
    bytes.setbyte(bytes.size / 2, bytes.getbyte(bytes.size / 2) ^ 1)
    File.binwrite(@file, bytes)
    damage = the_damage(/sha256/)
    assert_equal [@id, "heap_dump", @report["file"]], damage.values_at("capture", "report", "file")
    assert_equal [@report["sha256"], Digest::SHA256.hexdigest(bytes)], damage.values_at("expected_sha256", "found_sha256")
    text = diagctl("verify", @id).out
    [@report["sha256"], damage["found_sha256"], @report["file"], "diagctl rm"].each { |word| assert_includes text, word }
  end

  def test_changed_lengths
    size = File.size(@file)
    File.truncate(@file, size - 1)
    assert_equal [size, size - 1], the_damage(/length/).values_at("expected_bytes", "found_bytes")
    File.write(@file, "xx", mode: "ab")
    assert_equal size + 1, the_damage(/length/)["found_bytes"]
    File.truncate(@file, 0)
    assert_equal 0, the_damage(/length/)["found_bytes"]
  end

  def test_missing_and_replaced_files
    File.unlink(@file)
    the_damage(/No such file/)
    File.symlink("/dev/null", @file)
    the_damage(/symbolic link/)
    File.unlink(@file)
    File.mkfifo(@file)
    the_damage(/not a regular file/)
  end

  # The checksum matches, because it was computed over incomplete data.
  def test_stream_that_does_not_decompress_is_damaged
    content = File.binread(@file)[0..-9]
    rewrite(content, "stored_bytes" => content.size)
    the_damage(/decompressed|content/)
    require "zlib"
    content = Zlib.gzip("short")
    rewrite(content, "stored_bytes" => content.size)
    the_damage(/decompresses to 5 bytes instead of 300027/)
    bomb = Zlib.gzip("\0" * 50_000_000)
    rewrite(bomb, "stored_bytes" => bomb.size)
    the_damage(/more than the 300027 bytes/)
  end

  def test_unknown_file_is_named_but_is_not_damage
    File.write(File.join(@dir, "notes\e[2J"), "mine")
    result = diagctl!("verify", "--all")
    assert_match(/^unknown  #{@id} notes/, result.out)
    refute_includes result.out, "\e"
    assert_path_exists File.join(@dir, "notes\e[2J")
  end

  def test_record_of_a_newer_version_is_named_and_is_not_damage
    File.write(File.join(@dir, "meta.json"), JSON.generate(meta(@id).except("check").merge("schema" => 99)))
    [@id, "--all"].each do |what|
      result = diagctl("verify", what)
      assert_equal 6, result.status, result
      assert_match(/^newer    #{@id}: a newer diagctl wrote it; use that version$/, result.out)
      refute_match(/damaged/, result.out)
    end
    assert_equal [true, [@id]], diagctl("verify", "--all", "--json").json.values_at("ok", "newer")
  end

  def test_damaged_record
    ["{", "", "[]", JSON.generate(meta(@id).merge("id" => @whole))].each do |text|
      File.write(File.join(@dir, "meta.json"), text)
      assert_equal "meta.json", the_damage(/meta\.json/)["file"]
    end
    File.unlink(File.join(@dir, "meta.json"))
    the_damage(/meta\.json/)
  end

  def test_statuses
    assert_equal 4, diagctl("verify", "2001").status
    assert_equal 4, diagctl("verify", "2001", @id).status
    assert_equal 2, diagctl("verify").status
    assert_equal 2, diagctl("verify", "--all", @id).status
    diagctl!("rm", @id, @whole)
    assert_equal 0, diagctl("verify", "--all").status, "an empty store is whole"
  end

  def test_nothing_is_changed
    File.truncate(@file, 5)
    File.unlink(File.join(@store, "index.jsonl"))
    before = listing
    assert_equal 1, diagctl("verify", "--all").status
    assert_equal before, listing
  end

  private

  def the_damage(problem)
    whole = diagctl!("verify", @whole)
    assert_match(/intact/, whole.out)
    result = diagctl("verify", "--all", "--json")
    assert_equal 1, result.status, result
    damaged = result.json.fetch("damaged")
    assert_equal 1, damaged.size, result
    assert_match problem, damaged.first["problem"]
    damaged.first
  end

  # Replaces the data, and the checksum in the record to match.
  def rewrite(content, **changes)
    File.binwrite(@file, content)
    # The record has no seal, like one that a person has edited.
    record = meta(@id).except("check")
    changes["sha256"] = Digest::SHA256.hexdigest(content)
    record["reports"].find { |report| report["name"] == "heap_dump" }.merge!(changes)
    File.write(File.join(@dir, "meta.json"), JSON.generate(record))
  end

  def listing
    Dir.glob("#{@store}/**/*", File::FNM_DOTMATCH).sort.map { |path| [path, File.lstat(path).mtime.to_r, File.lstat(path).size] }
  end
end
