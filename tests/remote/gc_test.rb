# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/s3_case"
require_relative "support/reading"

module E2E
  # Deletions by a person in the remote, on S3 and in a directory.
  module Deleting
    def test_a_deleted_capture_is_gone_from_everywhere_and_its_node_does_not_bring_it_back
      first, second = capture, capture(9 << 20)
      ship!
      assert_match(/\Adeleted #{first} of \S+\n\z/, read!("rm", first).out)
      assert_equal [second], remote_list("-q", env: elsewhere).out.split
      assert_empty(remote_keys.grep(/#{first}/))
      assert_equal 4, read("show", first).status
      assert_equal 4, read("rm", first).status
      # The node writes its manifest of the day anew.
      third = capture
      ship!
      assert_equal [second, third].sort, remote_list("-q", env: elsewhere).out.split.sort
      assert_equal 3, diagctl!("list", "-q").out.split.size, "the store of the node is not touched"
      assert_match(/"by":"\S+ ?.*"/, remote_object(remote_keys.grep(/~deleted~/).first))
    end

    def test_a_pinned_capture_needs_force
      id = capture
      diagctl!("pin", id)
      ship!
      result = read("rm", id)
      assert_equal 1, result.status
      assert_match(/was pinned when it was shipped.*hint: use --force/m, result.err)
      read!("rm", "--force", id)
      assert_empty remote_list("-q", env: elsewhere).out
    end

    def test_retention_deletes_the_oldest_until_the_rest_fits_and_keeps_what_is_pinned
      ids = Array.new(4) { capture(100_000) }
      diagctl!("pin", ids[0])
      ship!
      before = remote_keys
      plan = read!("gc", "--max-use", "250KiB", "--dry-run")
      assert_match(/^delete +#{ids[1]} +\S+ +\S+ KiB +the oldest/, plan.out)
      assert_match(/^would delete 2 captures \(.*\), would keep 2 captures/, plan.out)
      assert_equal before, remote_keys, "a dry run deletes nothing"
      done = read!("gc", "--max-use", "250KiB", "--json").json
      assert_equal [2, 2, false], done.values_at("deleted", "kept", "dry_run")
      assert_equal [ids[0], ids[3]], remote_list("-q", env: elsewhere).out.split.sort
      assert_equal 2, remote_keys.grep(/meta.json/).size
      assert_match(/verified 2 captures.*intact/, read!("verify", "--all").out)
      assert_match(/^deleted 0 captures/, read!("gc", "--max-age", "1d").out)
    end

    def test_retention_needs_a_limit_and_the_rights
      result = read("gc")
      assert_equal 2, result.status
      assert_match(/needs --max-age or --max-use/, result.err)
      assert_equal 2, diagctl("gc", "--max-age", "1d").status
      %w[--max-age --max-use].each { |option| assert_match(/must be .*than zero/, diagctl("gc", "--remote", option, "0").err) }
    end
  end

  class DeletingFromS3Test < S3Case
    include Reading
    include Deleting

    def test_credentials_that_may_not_delete_are_told
      id = capture
      ship!
      faults { |method, _, _| 403 if %w[DELETE POST].include?(method) }
      result = read("rm", id)
      assert_equal 1, result.status
      assert_match(/cannot delete.*hint: the credentials may not do this/m, result.err)
      remote
      assert_equal [id], remote_list("-q", env: elsewhere).out.split
    end
  end

  class PlanningWithS3Test < S3Case
    include Reading

    def test_a_dry_run_needs_no_right_to_write_and_the_deletion_does
      id = capture
      ship!
      faults { |method, _, _| 403 if %w[DELETE POST PUT].include?(method) }
      plan = read!("gc", "--max-use", "1B", "--dry-run")
      assert_match(/would delete 1 capture/, plan.out)
      assert_match(/ages are by the clock of this machine/, plan.err)
      result = read("gc", "--max-use", "1B")
      assert_equal 1, result.status
      assert_match(%r{cannot write probes/\S+.*hint: the credentials may not do this.*need s3:PutObject on probes/\*}m, result.err)
      refute_match(/the next run resumes/, result.err)
      remote
      assert_equal [id], remote_list("-q", env: elsewhere).out.split
    end
  end

  class DeletingFromDirectoryTest < DirectoryCase
    include Reading
    include Deleting

    # A second capture, of which the remote has but one file, since so many days.
    def half_shipped(days)
      ship!
      id = capture
      dir = File.join(Dir.glob("#{@files}/captures/*/*").first, id).tap { |path| Dir.mkdir(path) }
      FileUtils.cp(File.join(@store, "reports", id, "blob.bin.gz"), dir)
      age(days, File.join(dir, "blob.bin.gz"))
      id
    end

    def age(days, *paths) = File.utime(Time.now - (days * 86_400), Time.now - (days * 86_400), *paths)

    def listed = remote_list("-q", env: elsewhere).out.split

    def test_what_was_never_shipped_whole_is_not_noted_as_deleted
      capture
      id = half_shipped(3)
      assert_match(/#{id}.*without meta.json: its shipment was never finished/, read!("gc", "--max-age", "90d").out)
      assert_empty remote_keys.grep(/#{id}|~deleted~/)
      ship!
      assert_shipped(id)
      assert_includes listed, id
      read!("fetch", id, "-o", File.join(@root, "out"))
    end

    def test_a_node_that_ships_an_old_day_again_brings_no_deleted_capture_back
      deleted, later = [capture, capture].map { |id| backdate(id, 4) }
      FileUtils.mv(File.join(@store, "reports", later), @root)
      ship!
      read!("rm", deleted)
      age(3, *Dir.glob("#{@files}/manifests/**/*.jsonl"))
      read!("gc", "--max-age", "90d")
      assert_empty listed
      FileUtils.mv(File.join(@root, later), File.join(@store, "reports"))
      ship!
      assert_equal [later], listed
    end

    # The environment of a machine with another clock, which does not change the times of files.
    def at(time)
      library = Dir.glob("/usr/lib/*/faketime/libfaketime.so.1").first || flunk("libfaketime is missing; run make deps")
      elsewhere.merge("LD_PRELOAD" => library, "FAKETIME" => time, "NO_FAKE_STAT" => "1", "DONT_FAKE_MONOTONIC" => "1", "FAKETIME_DONT_FAKE_MONOTONIC" => "1")
    end

    def test_a_wrong_clock_deletes_nothing
      id = capture
      under_way = half_shipped(0)
      before = remote_keys
      ["+100d", "-100d"].each do |time|
        result = read("gc", "--max-age", "90d", env: at(time))
        assert_equal 1, result.status, result
        assert_match(/nothing was deleted: it is #{clock(time)}\S+ here, and #{clock("+0d")}\S+ by the clock of the remote.*hint: set the clock/m, result.err)
        assert_equal before, remote_keys
      end
      assert_match(/^deleted 0 captures .*, kept 2 captures/, read!("gc", "--max-age", "90d", env: at("+5m")).out)
      assert_equal [[id], before], [listed, remote_keys], under_way
    end

    def clock(offset) = (Time.now.utc + (offset.to_i * 86_400)).strftime("%F")

    def test_a_pin_in_any_manifest_counts
      id = capture
      diagctl!("pin", id)
      ship!
      manifest = Dir.glob("#{@files}/manifests/*/*.jsonl").first
      unpinned = JSON.parse(File.read(manifest)).merge("pinned" => false)
      # Read before it, and after it.
      %w[0 f].each { |digit| File.write(manifest.sub(/~\h+/, "~#{digit * 8}"), "#{JSON.dump(unpinned)}\n") }
      assert_match(/^deleted 0 captures/, read!("gc", "--max-use", "1B").out)
      assert_equal 1, read("rm", id).status
    end

    def test_a_pinned_capture_needs_force_under_every_spelling_of_its_host
      id = capture
      change_record(id, "host" => "web_1")
      diagctl!("pin", id)
      ship!
      manifest = Dir.glob("#{@files}/manifests/*/*.jsonl").first
      File.write(manifest.sub(/~\h+/, "~0"), "#{JSON.dump(JSON.parse(File.read(manifest)).merge("pinned" => false, "host" => "web 1"))}\n")
      ["web 1", "web_1"].each do |host|
        assert_match(/was pinned when it was shipped/, read("rm", "#{host}/#{id}").err)
      end
      refute_empty remote_keys.grep(/meta.json/)
    end

    def test_a_capture_of_a_host_with_an_odd_name_is_not_listed_once_it_is_deleted
      id = capture
      change_record(id, "host" => "web 1+é")
      ship!
      assert_equal [id], listed
      read!("gc", "--max-use", "1B")
      assert_empty listed
    end

    def test_a_capture_that_was_shipped_again_is_listed_again
      id, other = capture, capture
      ship!
      read!("rm", id)
      read!("rm", other)
      age(1, *Dir.glob("#{@files}/manifests/*/~deleted~*"))
      File.delete(File.join(@store, "reports", id, "shipped"))
      ship!
      assert_match(/#{id} of \S+ was shipped again after it was deleted/, read!("gc", "--max-age", "90d").err)
      assert_equal [id], listed
      assert_shipped(id)
    end

    def test_a_capture_of_which_nothing_is_left_is_not_said_to_be_deleted
      gone, there, third = capture, capture, capture
      ship!
      FileUtils.rm_rf(Dir[File.join(@files, "captures/*/*/#{gone}")])
      result = read("rm", gone, third)
      assert_match(/\Adeleted #{third} of \S+\n\z/, result.out)
      assert_equal 4, result.status, result
      assert_match(/capture #{gone} of \S+ is not in the remote/, result.err)
      assert_equal [there], remote_list("-q", env: elsewhere).out.split, "it is listed no more"
    end

    def test_a_directory_to_which_nothing_was_sent_is_named
      [%w[verify --all], %w[gc --max-age 90d --dry-run], %w[gc --max-age 90d]].each do |command|
        assert_match(/nothing was ever sent to #{@files}; if it is a share/, read!(*command).err, command.join(" "))
      end
      assert_empty Dir.children(@files)
    end

    def test_what_is_in_a_manifest_and_has_lost_its_record_is_noted_as_deleted
      capture
      gone = capture
      ship!
      Dir.glob("#{@files}/captures/**/#{gone}/*") { |path| path.end_with?("meta.json") ? File.delete(path) : age(3, path) }
      read!("gc", "--max-age", "90d")
      refute_includes listed, gone
    end

    def test_what_killed_shippers_left_unfinished_goes_after_a_day
      id = capture
      ship!
      dir = File.dirname(Dir.glob("#{@files}/captures/**/#{id}/meta.json").first)
      old, new = %w[.tmp-01234567 .tmp-89abcdef].map { |name| File.join(dir, name) }
      [old, new].each { |path| File.write(path, "half") }
      File.utime(Time.now - 25 * 3600, Time.now - 25 * 3600, old)
      read!("gc", "--max-age", "100d")
      assert_equal [false, true], [old, new].map { |path| File.exist?(path) }
      assert_shipped(id)
    end
  end
end
