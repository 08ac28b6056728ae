# frozen_string_literal: true

require "zlib"
require_relative "support/torture"

# Store files that were truncated, had a bit flipped, were enlarged, or were written by somebody else. Every command keeps
# working, reports the problem, and deletes nothing that it does not know.
class CorruptionTest < Torture::Case
  FIXTURE_CONFIG = { retention: "keep_free = \"1%\"\nmax_use = \"4GiB\"\nmax_age = \"14d\"\nkeep_last = 0" }.freeze

  # The size of content that compresses to a thousandth.
  BOMB = 24 << 20
  MEMORY = 20 << 20

  def setup
    super
    configure(**FIXTURE_CONFIG)
    3.times { |i| store_capture("gc_stat" => "{\"count\":#{i}}", "heap_dump" => E2E.dump(Random.new(i).bytes(2000))) }
    diagctl!("gc")
    @kept = acknowledged(@store)
  end

  # Caches and records: whatever becomes of them, captures are the truth.
  %w[index.jsonl catalog.bin state.json lease.json events.jsonl config.cache config.good.toml].each do |file|
    define_method(:"test_#{file.tr('.', '_')}_cut_anywhere") { damaged(file) { |data, at| data[0, at] } }

    define_method(:"test_#{file.tr('.', '_')}_with_any_bit_flipped") { damaged(file) { |data, at| flip(data, at) } }
  end

  def test_a_damaged_meta_json_is_reported_and_left_alone
    id = @kept.keys.first
    length = File.size(File.join(@store, "reports", id, "meta.json"))
    changes = [->(data, at) { data[0, at] }, ->(data, at) { flip(data, at) }].product(Torture.sample((0...length).to_a, 6))
    Torture.each_parallel(changes) do |change, at|
      copy_of(@store) do |store|
        path = File.join(store, "reports", id, "meta.json")
        data = change.call(File.binread(path), at)
        File.binwrite(path, data)
        # The index, which still lists the capture, must not hide the damage.
        File.delete(File.join(store, "index.jsonl"))
        what = "meta.json, byte #{at}"
        listing = on(store, "list", "--json")
        assert listing.ok?, "#{what}\n#{listing}"
        if listing.json.fetch("damaged").map { |damaged| damaged["id"] } == [id]
          assert_match(%r{#{id}/meta.json is damaged|version}, listing.err, what)
          shown = on(store, "show", id)
          assert_includes [1, 6], shown.status, "#{what}\n#{shown}"
          assert_match(/meta\.json/, shown.err)
        else
          assert_equal @kept.keys.sort, listing.json.fetch("captures").map { |capture| capture["id"] }.sort, what
          assert_same_record(store, id, what)
        end
        assert on(store, "gc").ok?, what
        assert_equal data, File.binread(path), "#{what}: touched"
        assert_next_capture(store, what)
      end
    end
  end

  def test_a_meta_json_of_a_newer_version_is_named_and_left_alone
    id = change_meta { |meta| meta.merge("schema" => 99) }
    listing = diagctl!("list")
    assert_match(/#{id}.*version 99/, listing.err)
    assert_equal 6, diagctl("show", id).status
    diagctl!("gc")
    assert_path_exists File.join(@store, "reports", id, "meta.json")
  end

  # A file that is larger than any that diagctl writes, and does not fit into memory.
  def test_huge_files_are_refused_at_no_cost
    id = @kept.keys.first
    sample = Dir.children(File.join(@store, "samples")).first
    ["reports/#{id}/meta.json", "index.jsonl", "catalog.bin", "state.json", "lease.json", "events.jsonl", "config.cache", "samples/#{sample}"].each do |file|
      copy_of(@store) do |store|
        File.truncate(File.join(store, file), 1 << 30)
        [%w[list], %w[status], ["fetch", @kept.keys.last, "gc_stat", "-o", "-"], %w[gc]].each do |argv|
          result = E2E::Command.run("prlimit", "--as=#{200 << 20}", "--", E2E::BIN, "--dir", store, *argv, env: env)
          assert_includes [0, 1], result.status, "#{file}: #{result}"
          assert result.ok? || result.err.include?(file), "#{file}: #{result}"
          refute_match(/memory allocation|panicked/, result.err)
        end
        others = @kept.except(id)
        assert_equal others, acknowledged_except(store, id), file
      end
    end
  end

  # Damaged captures count against the cap, so that many of them cannot make the store exceed it.
  def test_captures_that_cannot_be_read_count_against_the_cap
    id = @kept.keys.first
    File.write(File.join(@store, "reports", id, "meta.json"), "{")
    File.write(File.join(@store, "reports", id, "big"), Random.bytes(900_000))
    File.delete(File.join(@store, "index.jsonl"))
    configure(retention: "keep_free = \"1%\"\nmax_use = \"1MiB\"")
    diagctl!("request", "heap_dump", "--reason", "one more")
    dumper = holder
    assert_equal 10, dumper.acquire.status
    assert_equal %w[guarded store], dumper.answer.values_at("verdict", "guard")
    assert_match(/max_use/, dumper.answer.fetch("reason"))
    diagctl!("gc")
    assert_path_exists File.join(@store, "reports", id, "big")
  end

  def test_a_bomb_is_limited_to_its_recorded_size
    { "gzip" => Zlib.gzip("\0" * BOMB, level: 9), "zstd" => zstd_zeros }.each do |encoding, bomb|
      change_meta(bomb, encoding) { |meta| meta.tap { |changed| heap_dump_of(changed)["raw_bytes"] = 2000 } }
      result = fetch_with_little_memory
      assert_equal 1, result.status
      assert_match(/decompresses to more than the \d+ bytes that were recorded/, result.err)
      assert_operator result.out.bytesize, :<=, 2000
      change_meta(bomb, encoding) { |meta| meta.tap { |changed| heap_dump_of(changed)["raw_bytes"] = BOMB } }
      result = fetch_with_little_memory
      assert result.ok?, result.err
      assert_equal BOMB, result.out.bytesize
    end
  end

  def test_unknown_files_are_left_alone_in_every_directory
    strange = ["", "requests/", "staging/", "reports/", "samples/", "quarantine/"].flat_map do |dir|
      ["#{dir}notes.txt", "#{dir}with blank\nand newline.json", "#{dir}strange.d/deep/file", "#{dir}.hidden"]
    end
    strange.each do |name|
      path = File.join(@store, name)
      FileUtils.mkdir_p(File.dirname(path))
      File.write(path, "precious")
    end
    diagctl!("gc")
    store_capture
    %w[list status].each { |command| refute_match(/[\u0000-\u0009\u000b-\u001f]/, diagctl!(command).out) }
    diagctl!("gc")
    strange.each { |name| assert_equal "precious", File.read(File.join(@store, name)), name }
    assert_equal @kept, acknowledged_in(@kept.keys)
  end

  private

  def flip(data, at) = data.dup.tap { |copy| copy.setbyte(at, copy.getbyte(at) ^ (1 << Random.new(Torture::SEED + at).rand(8))) }

  def damaged(file)
    length = File.size(File.join(@store, file))
    places = Torture.sample((0...length).to_a, 5)
    Torture.each_parallel(places) do |at|
      copy_of(@store) do |store|
        path = File.join(store, file)
        File.binwrite(path, yield(File.binread(path), at))
        what = "#{file}, byte #{at} of #{length}"
        assert on(store, "gc").ok?, what
        listed = assert_opens(store, what)
        assert_equal @kept.keys.sort, listed.sort, what
        assert_next_capture(store, what)
        @kept.each { |id, sums| assert_equal sums, checksums(store, id), what }
        # The output equals the recorded values.
        @kept.each_key { |id| assert_same_record(store, id, what) } if %w[index.jsonl catalog.bin].include?(file)
      end
    end
  end

  def assert_same_record(store, id, what)
    find = ->(dir) { on(dir, "list", "--json").json.fetch("captures").find { |capture| capture["id"] == id } }
    assert_equal find.(@store), find.(store), what
  end

  # Rewrites the record of the first capture without a seal and, if data is given, its heap dump. Returns its id.
  def change_meta(data = nil, encoding = "gzip")
    id = @kept.keys.first
    dir = File.join(@store, "reports", id)
    meta = meta(id).except("check")
    if data
      report = heap_dump_of(meta)
      File.binwrite(File.join(dir, report["file"]), data)
      report.merge!("encoding" => encoding, "stored_bytes" => data.bytesize, "sha256" => Digest::SHA256.hexdigest(data))
    end
    File.write(File.join(dir, "meta.json"), JSON.generate(yield(meta)))
    File.delete(File.join(@store, "index.jsonl")) if File.exist?(File.join(@store, "index.jsonl"))
    id
  end

  def heap_dump_of(meta) = meta["reports"].find { |report| report["name"] == "heap_dump" }

  # A frame of blocks that each repeat one byte (RFC 8878, 3.1.1.2), because Ruby has no zstd. 0x38: a window of 128 KiB.
  def zstd_zeros(block = 128 << 10)
    blocks = Array.new(BOMB / block) { |i| [(block << 3) | (1 << 1) | (i + 1 == BOMB / block ? 1 : 0)].pack("V")[0, 3] + "\0" }
    [0xFD2FB528, 0, 0x38].pack("VCC") + blocks.join
  end

  def fetch_with_little_memory
    E2E::Command.run("prlimit", "--as=#{MEMORY}", "--", E2E::BIN, "fetch", @kept.keys.first, "heap_dump", "-o", "-", env: env)
  end

  def acknowledged_except(store, id) = acknowledged_in(@kept.keys - [id], store)

  def acknowledged_in(ids, store = @store) = ids.to_h { |id| [id, checksums(store, id)] }
end
