# frozen_string_literal: true

require_relative "support/directory_case"

module E2E
  class ShipToDirectoryTest < DirectoryCase
    def test_captures_arrive_in_a_directory
      ids = [capture, capture(20 << 20)]
      ship!
      ids.each { |id| assert_shipped(id) }
      assert_equal ["meta.json"], remote_keys.map { |key| File.basename(key) }.grep(/json$/).uniq
    end

    # The mount of a share that failed would otherwise fill the node's own disk with captures that count as shipped.
    def test_a_directory_that_is_missing_is_not_made
      id = capture
      Dir.rmdir(@files)
      told = diagctl("ship", env: shipping_env)
      assert_equal [1, false], [told.status, File.exist?(@files)], told
      assert_match(/#{@files}: No such file.*hint: the directory of remote.url must exist/m, told.err)
      listed = diagctl("list", "--remote", env: shipping_env)
      assert_equal 1, listed.status, listed
      Dir.mkdir(@files)
      ship!
      assert_shipped(id)
    end

    # A mount point is there without its share.
    def test_a_share_that_is_not_mounted_takes_no_capture
      capture
      ship!
      away = "#{@files}-away"
      File.rename(@files, away)
      FileUtils.mkdir_p(File.join(@files, "nodes"))
      id = capture
      result = ship
      assert_equal 1, result.status, result
      assert_match(/#{@files} has none of the captures that were sent to it\n  hint: mount the share; .*`mkdir #{@files}\/captures`/, result.err)
      refute shipped?(id)
      listed = diagctl("list", "--remote", env: shipping_env)
      assert_match(/nothing was ever sent to #{@files}; if it is a share, is it mounted here\?\n.*no captures in/, listed.err)
      FileUtils.rm_rf(@files)
      File.rename(away, @files)
      ship!
      assert_shipped(id)
    end

    # Somebody, or a lifecycle rule, has deleted what a store that forgot its shipment takes for whole.
    def test_a_record_in_the_remote_proves_no_report
      id = diagctl!("run", "--", "sh", "-c", "for name in one two three; do echo $name > $DIAGCTL_CAPTURE_DIR/$name; done").out.chomp
      ship!
      one, two, three = %w[one two three].map { |name| File.join(@files, remote_keys.grep(%r{/#{id}/#{name}}).first) }
      File.delete(one)
      File.write(two, "shorter")
      before = File.stat(three).ino
      File.delete(File.join(@store, "reports", id, "shipped"))
      ship!
      assert_shipped(id)
      assert_equal before, File.stat(three).ino, "what is there is not sent again"
    end

    def test_a_bandwidth_is_kept
      capture(3 << 20)
      configure(remote: "#{remote_section}\nmax_bandwidth = \"1MiB\"")
      assert_ships_in(2)
      assert_empty Dir[File.join(@files, "**/.tmp-*")]
    end

    def test_a_pin_that_comes_after_the_shipment_is_told_to_count_here_only
      id = capture
      assert_equal "pinned #{id}\n", diagctl!("pin", id).out
      ship!
      assert_match(/\Aunpinned #{id} here only: it was shipped before/, diagctl!("unpin", id).out)
      assert_match(/\Apinned #{id} here only: it was shipped before/, diagctl!("pin", id).out)
      assert_equal [id], remote_list("--pinned", "-q").out.split
    end

    def test_a_capture_that_was_damaged_in_the_remote_is_sent_again
      id = capture
      other = capture
      ship!
      key = remote_keys.grep(%r{captures/.*/#{id}/blob}).first
      flip(File.join(@files, key), 20)
      verify = -> { diagctl("verify", "--remote", "--all", env: shipping_env) }
      assert_match(/`diagctl ship --again ID` on the node sends what its store still has/, verify.call.out)
      assert_match(/nothing to ship/, ship!.out + ship!.err)
      assert_equal 4, ship("--again", "2020").status
      File.rename(@files, "#{@files}-gone")
      assert_equal 1, ship("--again", id[0, 18]).status
      File.rename("#{@files}-gone", @files)
      assert_match(/shipped #{id}/, ship!.out, "what has failed is not forgotten")
      assert verify.call.ok?
      [id, other].each { |capture| assert_shipped(capture) }
    end

    def test_a_damaged_capture_is_not_shipped_and_stops_no_other
      bad, good = capture, capture
      path = File.join(@store, "reports", bad, "blob.bin.gz")
      File.write(path, "x", 100)
      result = ship
      assert_equal 5, result.status
      assert_includes result.err, "report blob of capture #{bad} is damaged, so the capture is not shipped"
      refute shipped?(bad)
      assert_empty(remote_keys.select { |key| key.include?(bad) })
      assert_shipped(good)
    end

    # More than are tried in order before the remote is given up.
    def test_captures_that_the_share_refuses_stop_no_other
      refused, good = Array.new(12) { capture }, Array.new(14) { capture }
      ship!
      dirs = refused.to_h { |id| [id, File.join(@files, File.dirname(remote_keys.grep(%r{/#{id}/}).first))] }
      FileUtils.rm_f(Dir.glob(["#{@store}/reports/*/shipped", "#{@files}/manifests/*/*"]))
      good.each { |id| FileUtils.rm_rf(Dir["#{@files}/captures/*/*/#{id}"]) }
      dirs.each_value.with_index do |dir, n|
        FileUtils.rm_rf(dir)
        case n % 4
        when 0 then FileUtils.mkdir_p(dir) && File.mkfifo("#{dir}/meta.json")
        when 1 then FileUtils.mkdir_p("#{dir}/blob.bin.gz/x")
        when 2 then File.write(dir, "no directory")
        else File.symlink(dir, dir)
        end
      end
      result = ship
      assert_equal 5, result.status, result
      good.each { |id| assert shipped?(id), id }
      assert_equal 3, result.err.scan(/(?:cannot|File exists|not a regular file).*captures/).size, result.err
      assert_match(/the remote refused 9 further captures/, result.err)
      assert_match(/12 captures wait in the store/, result.err)
      result = ship
      assert_equal 1, result.status, result
      assert_equal 1, result.err.scan("cannot").size, result.err
      dirs.each_value { |dir| FileUtils.rm_rf(dir) }
      ship!
    end

    def test_a_capture_whose_record_is_damaged_is_told_and_counted
      bad = capture
      cut_record(bad)
      2.times do
        result = ship
        assert_equal 1, result.status, result
        assert_match(/capture #{bad} cannot be shipped: .*#{bad}\/meta.json is damaged.*\n  hint: .*`diagctl rm #{bad}`/, result.err)
        refute_match(/nothing to ship/, result.out)
      end
      good = capture
      assert_equal 5, ship.status
      assert_shipped(good)
      assert_empty(remote_keys.select { |key| key.include?(bad) })
      assert_includes diagctl!("metrics").out, "diagctl_captures_damaged 1\n"
      assert_match(/ship_failed.*capture #{bad} cannot be shipped/, diagctl!("events").out)
      diagctl!("rm", bad)
      assert_includes ship!.out, "nothing to ship"
      assert_includes diagctl!("metrics").out, "diagctl_captures_damaged 0\n"
    end

    def test_the_cap_takes_shipped_captures_first_and_names_the_others
      retention = 'max_captures = 2
keep_last = 0
keep_free = "1%"'
      configure(remote: "url = \"file://#{@files}\"", retention: retention)
      old, shipped = capture(name: "a"), capture(name: "b")
      FileUtils.mv(File.join(@store, "reports", old), File.join(@root, "aside"))
      ship!
      FileUtils.mv(File.join(@root, "aside"), File.join(@store, "reports", old))
      capture(name: "c")
      kept = captures.map { |capture| capture["id"] }
      assert_includes kept, old
      refute_includes kept, shipped
      capture(name: "d")
      refute_includes captures.map { |capture| capture["id"] }, old
      assert_match(/deleted +#{old}.*NOT shipped/, diagctl!("events").out)
      assert_includes ship!.err, "never shipped: 1 captures"
    end

    def test_nothing_is_configured_or_the_program_is_missing
      result = ship(env: shipping_env.merge("PATH" => "/usr/bin:/bin"))
      if result.err.include?("neither beside")
        assert_equal 1, result.status
        assert_includes result.err, "put the one of the same release beside diagctl"
      end
      configure
      result = ship
      assert_equal 3, result.status
      assert_includes result.err, "names no remote"
    end
  end
end
