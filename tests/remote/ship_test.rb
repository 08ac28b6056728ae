# frozen_string_literal: true

require_relative "support/s3_case"

module E2E
  class ShipTest < S3Case
    def test_captures_arrive_with_every_byte_and_once
      ids = [capture, capture(20 << 20), capture]
      diagctl!("pin", ids.last)
      # One after the other.
      remote(max_bandwidth: "1GiB")
      result = ship!
      assert_equal [ids[2], ids[0], ids[1]], result.out.scan(/^shipped (\S+)/).flatten, "the pinned one goes first"
      ids.each { |id| assert_shipped(id) }
      before = remote_keys
      assert_equal "nothing to ship\n", ship!.out
      assert_equal before, remote_keys
      assert_empty @server.uploads(@bucket)
      assert_includes diagctl!("events").out, "shipped"
      assert_empty diagctl!("verify", "--all").err
    end

    def test_a_shipper_killed_during_a_multipart_upload_is_resumed_by_the_next_one
      id = capture(40 << 20)
      remote(max_bandwidth: "8MiB")
      journal = File.join(@store, "remote/uploads", id)
      pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => File::NULL)
      begun = wait_until("two parts in the journal") do
        upload = File.exist?(journal) && JSON.parse(File.read(journal)).first
        upload if upload && upload["parts"].size >= 2
      end
      Process.kill(:KILL, pid)
      Process.wait(pid)
      refute shipped?(id)
      assert_empty remote_keys, "nothing of an upload is seen before it is complete"
      assert_equal [name_of_upload(begun)], @server.uploads(@bucket)
      begun = JSON.parse(File.read(journal)).first

      remote
      refute_nil begun["parts"].first
      ship!
      assert_shipped(id)
      assert_empty @server.uploads(@bucket), "no second upload was begun"
      refute File.exist?(journal)
    end

    def test_an_upload_that_the_remote_has_forgotten_starts_again
      only_on_a_server_that_checks
      id = capture(20 << 20)
      FileUtils.mkdir_p(File.join(@store, "remote/uploads"), mode: 0o700)
      key = "captures/#{meta(id)["created"][0, 10]}/#{meta(id)["host"]}/#{id}/blob.bin.gz"
      upload = { schema: 1, url: remote_url, key: key, upload_id: "gone", part_bytes: 8 << 20,
                 bytes: file(id, "blob.bin.gz").bytesize, parts: ["x"] }
      File.write(File.join(@store, "remote/uploads", id), JSON.dump(upload))
      # s3s-fs says so only by closing the connection.
      10.times { break if ship.ok? }
      assert_shipped(id)
    end

    def test_the_upload_of_a_capture_that_was_deleted_is_aborted
      id = capture(30 << 20)
      remote(max_bandwidth: "5MiB")
      pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => File::NULL)
      journal = File.join(@store, "remote/uploads", id)
      wait_until("an upload") { File.exist?(journal) }
      Process.kill(:KILL, pid)
      Process.wait(pid)
      diagctl!("rm", id)
      remote
      result = ship!
      assert_includes result.err, "gave up the upload of #{id}"
      assert_empty @server.uploads(@bucket)
      assert_empty remote_keys
    end

    def test_credentials_that_may_not_abort_uploads_stop_no_other_capture
      id = capture(30 << 20)
      remote(max_bandwidth: "5MiB")
      pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => File::NULL)
      wait_until("an upload") { File.exist?(File.join(@store, "remote/uploads", id)) }
      Process.kill(:KILL, pid)
      Process.wait(pid)
      diagctl!("rm", id)
      other = capture
      faults { |method, _, _| 403 if method == "DELETE" }
      ship!
      assert shipped?(other)
    end

    def test_two_shippers_at_once_ship_everything_once
      ids = Array.new(6) { capture(100_000) }
      threads = Array.new(2) { Thread.new { ship } }
      results = threads.map(&:value)
      results.each { |result| assert result.ok?, result }
      assert_equal ids.sort, results.flat_map { |result| result.out.scan(/^shipped (\S+)/).flatten }.sort
      ids.each { |id| assert_shipped(id) }
    end

    # Their locks do not see each other, as on two machines.
    def test_two_stores_with_the_same_capture_do_no_harm
      id = capture(20 << 20)
      other = File.join(@root, "other")
      FileUtils.cp_r(@store, other)
      results = [@store, other].map { |dir| Thread.new { ship(env: shipping_env.merge("DIAGCTL_DIR" => dir)) } }.map(&:value)
      results.each { |result| assert result.ok?, result }
      assert_shipped(id)
      assert_empty @server.uploads(@bucket)
    end

    def test_a_server_that_stops_loses_nothing_and_the_watcher_goes_on_by_itself
      skip("moto forgets everything when it stops") if server_class == MotoServer
      mine = server_class.new(File.join(@root, "server")).start
      mine.create_bucket(@bucket)
      @server = mine
      remote(endpoint: mine.endpoint)
      first = capture
      log = File.join(@root, "ship.log")
      pid = spawn(shipping_env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      wait_until("the first one", tell: -> { File.read(log) }) { shipped?(first) }
      mine.stop
      second = capture
      wait_until("a failure", tell: -> { File.read(log) }) { File.read(log).include?("cannot") }
      refute shipped?(second)
      mine.start
      wait_until("the second one", deadline: 120, tell: -> { File.read(log) }) { shipped?(second) }
      Process.kill(:TERM, pid)
      assert_equal 0, Process.wait2(pid).last.exitstatus
      [first, second].each { |id| assert_shipped(id) }
    ensure
      mine&.stop
    end

    def test_a_wrong_key_and_a_missing_bucket_are_told_with_what_to_do
      only_on_a_server_that_checks
      id = capture
      result = ship(env: wrong_key)
      assert_equal 1, result.status
      assert_includes result.err, codes[0]
      assert_includes result.err, "hint: check the credentials"
      refute_includes result.err, wrong_key.values.last
      @bucket = "no-such-bucket"
      remote
      result = ship
      assert_equal 1, result.status
      assert_includes result.err, codes[1]
      refute shipped?(id)
    end

    def test_a_node_that_may_only_write_ships
      id = capture(20 << 20)
      faults { |method, _, _| 403 if %w[GET HEAD].include?(method) }
      ship!
      assert_shipped(id)
      assert_empty @server.uploads(@bucket)
    end

    def test_captures_that_the_remote_refuses_stop_no_other_and_one_that_refuses_all_is_given_up
      ids = Array.new(30) { capture }
      refused, good = ids[0, 17], ids[17..]
      faults { |method, target, _| 403 if method == "PUT" && refused.any? { |id| plain(target).include?(id) } }
      result = ship
      assert_equal 5, result.status, result
      good.each { |id| assert shipped?(id), id }
      assert_equal [true, 17], [result.err.scan(/: it answers 403|AccessDenied|Forbidden/).size <= 3, ids.count { |id| !shipped?(id) }]
      more = Array.new(45) { capture }
      tried = @proxy.requests.size
      refused.replace(ids + more)
      result = ship
      assert_equal 1, result.status, result
      assert_equal 1, result.err.scan("cannot").size, result.err
      assert_operator @proxy.requests[tried..].grep(/PUT/).size, :<, 50, "of 62 captures"
    end

    def test_every_kind_of_fault_is_survived
      only_on_a_server_that_checks
      faults { |_, _, number| [500, 503, 429, :cut, :lost, :flip][(number / 2) % 6] if number.even? }
      ids = [capture, capture(20 << 20), capture]
      20.times { break if ship.ok? }
      ids.each { |id| assert_shipped(id) }
    end

    def test_a_size_that_the_remote_does_not_confirm_is_not_shipped
      id = capture(10 << 20)
      faults { |method, target, _| :short if method == "HEAD" && plain(target).end_with?("blob.bin.gz") }
      result = ship
      assert_equal 1, result.status
      assert_match(/blob.bin.gz has 1 bytes in the remote, and \d+ were sent/, result.err)
      refute shipped?(id)
      assert_empty(remote_keys.grep(/meta.json/))
    end

    def test_a_checksum_that_the_remote_does_not_confirm_is_not_shipped
      skip("only S3 tells it") unless remote_url.start_with?("s3:")
      id = capture
      faults { |method, target, _| :other if method == "PUT" && plain(target).end_with?("blob.bin.gz") }
      result = ship(deadline: 120)
      assert_equal 1, result.status
      assert_match(/blob.bin.gz in #{remote_url} at \S+: the remote received something else than what was sent: SHA-256 AAAA instead of/, result.err)
      refute shipped?(id)
      assert_empty(remote_keys.grep(/meta.json/))
    end

    # With latency, the number of requests is what shipping takes. A write is confirmed by its checksum.
    def test_a_capture_costs_a_write_for_each_file_and_one_read
      script = (1..9).map { |n| "echo #{n} > $DIAGCTL_CAPTURE_DIR/small#{n}" }.join("; ")
      id = diagctl!("run", "--", "sh", "-c", script).out.chomp
      faults { nil }
      ship!
      assert_shipped(id)
      files = Dir.children(File.join(@store, "reports", id)) - ["shipped"]
      kinds = @proxy.requests.reject { |request| request.include?("manifests") }.map { |request| request[/\A\w+/] }.tally
      assert_equal({ "PUT" => files.size, "GET" => 1 }, kinds, @proxy.requests.join("\n"))
    end

    def test_a_large_report_that_is_damaged_is_uploaded_once_at_most_and_leaves_nothing
      id = capture(20 << 20)
      path = File.join(@store, "reports", id, "blob.bin.gz")
      flip(path, 19 << 20)
      2.times do
        faults { nil }
        result = ship
        assert_equal 1, result.status
        assert_includes result.err, "capture #{id} is damaged"
        assert_empty unfinished_uploads
        assert_empty remote_keys
      end
      assert_empty(@proxy.requests.reject { |request| request.start_with?("GET") })
      flip(path, 19 << 20)
      ship!
      assert_shipped(id)
      refute_path_exists File.join(@store, "remote/uploads", id)
    end

    # DIAGCTL_TEST_CAPTURES=1000 is the test of scale, which takes minutes.
    def test_under_kills_cuts_and_errors_nothing_is_lost_or_damaged_or_counted_too_early
      only_on_a_server_that_checks
      random = Random.new(20)
      faults { |_, _, _| [500, 503, :cut, :lost, :flip].sample(random: random) if random.rand < 0.1 }
      ids = Array.new(Integer(ENV.fetch("DIAGCTL_TEST_CAPTURES", "20"))) { |n| capture((n % 50).zero? || n == 5 ? 12 << 20 : 50_000) }
      kills, peak = 0, 0
      (ids.size * 10).times do
        break if ids.all? { |id| shipped?(id) }

        pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => File::NULL)
        # Later and later, so that a slow machine comes to an end, too.
        killer = Thread.new { kill_within(pid, kills.zero? ? 0.4 : random.rand * (1 + kills / 20.0)) { |kib| peak = [peak, kib].max } }
        kills += 1 if Process.wait2(pid).last.signaled?
        killer.kill
        committed = remote_keys.filter_map { |key| key[%r{/([^/]+)/meta.json\z}, 1] }
        assert_empty ids.select { |id| shipped?(id) } - committed, "counted as shipped without its record"
      end
      assert_operator kills, :>, 0
      keys = remote_keys
      ids.each { |id| assert_shipped(id, keys) }
      assert_operator peak, :<=, 64 << 10, "KiB"
      puts "#{ids.size} captures shipped under #{kills} kills and #{@proxy.requests.size} requests, peak #{peak} KiB" if ids.size > 20
    end

    def test_the_captures_of_all_machines_are_listed_without_a_store
      mine = [capture, capture]
      ship!
      # The capture of another machine, which this one knows only from the remote.
      other = JSON.parse(remote_object(remote_keys.grep(/manifests/).first).lines.first)
      id = "20200102T030405000Z-0000beef"
      other = other.merge("id" => id, "host" => "web-2", "created" => "2020-01-02T03:04:05.000Z")
      @server.request("PUT", "/#{@bucket}/fleet/manifests/2020-01-02/web-2~00000000.jsonl", body: "#{JSON.dump(other)}\n{\"torn")
      elsewhere = shipping_env.merge("DIAGCTL_DIR" => File.join(@root, "no-store"))
      listed = remote_list("-q", env: elsewhere)
      assert_equal mine.sort + [id], listed.out.split.sort_by { |text| text == id ? "z" : text }
      assert_match(%r{skipped a damaged line of manifests/2020-01-02/web-2~00000000.jsonl}, listed.err)
      assert_match(/HOST/, remote_list(env: elsewhere).out)
      assert_equal [id], remote_list("-q", "--host", "web-*", env: elsewhere).out.split
      assert_equal mine.sort, remote_list("-q", "--since", "1d", env: elsewhere).out.split.sort
      assert_equal "web-2", remote_list("--json", "--host", "web-2").json["captures"].first["host"]
      only_on_a_server_that_checks
      result = diagctl("list", "--remote", env: wrong_key)
      assert_equal 1, result.status
      assert_includes result.err, "hint: check the credentials"
    end

    def test_credentials_come_from_a_command
      id = capture
      program = File.join(@root, "credentials")
      printed = JSON.dump("Version" => 1, "AccessKeyId" => S3Server::KEY, "SecretAccessKey" => S3Server::SECRET)
      File.write(program, "#!/bin/sh\necho '#{printed}'\n")
      File.chmod(0o700, program)
      remote(credential_command: [program])
      ship!(env: shipping_env.except("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
      assert_shipped(id)
    end

    def test_the_second_interrupt_ends_what_the_first_one_lets_arrive
      id = capture(60 << 20)
      remote(max_bandwidth: "1MiB", flush: "1h")
      log = File.join(@root, "ship.log")
      pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => log)
      wait_until("it has begun") { File.exist?(File.join(@store, "remote/uploads", id)) }
      Process.kill(:INT, pid)
      told = "stopping when what is under way has arrived, after 1h at most; a second signal stops at once"
      wait_until("the shipper says so", tell: -> { File.read(log) }) { File.read(log).include?(told) }
      Process.kill(:INT, pid)
      wait_until("the end", tell: -> { File.read(log) }, deadline: 30) { Process.wait2(pid, Process::WNOHANG) }
      assert_match(/stopped; 1 capture waits in the store/, File.read(log))
    end

    def test_sigterm_ships_what_waits_within_the_deadline_and_no_longer
      ids = [capture, capture(60 << 20)]
      remote(max_bandwidth: "1MiB", flush: "2s")
      log = File.join(@root, "ship.log")
      pid = spawn(shipping_env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      wait_until("the large one has begun") { File.exist?(File.join(@store, "remote/uploads", ids[1])) }
      Process.kill(:TERM, pid)
      status = wait_until("the end", tell: -> { File.read(log) }, deadline: 30) { Process.wait2(pid, Process::WNOHANG) }.last
      assert_equal 1, status.exitstatus, File.read(log)
      assert_match(/stopped; \d captures? waits? in the store/, File.read(log))
      remote
      ship!
      ids.each { |id| assert_shipped(id) }
      assert_empty @server.uploads(@bucket)
    end

    def test_memory_stays_within_64_mib_whatever_the_sizes_and_their_number
      id = capture(100 << 20)
      11.times { capture(7 << 20) }
      pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => File::NULL)
      most = 0
      until Process.wait(pid, Process::WNOHANG)
        most = [most, File.read("/proc/#{pid}/status")[/VmHWM:\s+(\d+)/, 1].to_i].max
        sleep 0.05
      end
      assert_shipped(id)
      assert_includes 1...(64 << 10), most, "KiB at the peak"
      puts "#{self.class}: #{most} KiB at the peak" if ENV.key?("DIAGCTL_TEST_FIGURES")
    end

    def test_a_bandwidth_is_kept
      capture(12 << 20)
      remote(max_bandwidth: "4MiB")
      assert_ships_in(2)
    end

    private

    def unfinished_uploads = @server.uploads(@bucket)

    # Yields the most memory that it had, KiB.
    def kill_within(pid, seconds)
      sleep(seconds)
      yield Processes.status(pid, "VmHWM") || 0
      Process.kill(:KILL, pid)
    rescue SystemCallError
      nil
    end
  end
end
