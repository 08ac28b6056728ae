# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"
require_relative "support/asking"

module E2E
  # What changes around `ship --watch` while it runs.
  class ShipWatchTest < DirectoryCase
    include Reading
    include Asking

    def test_a_store_that_was_renamed_deleted_or_replaced_is_not_kept
      first = capture
      log = watch
      wait_for_shipped(first, log)
      File.rename(@store, "#{@store}-old")
      wait_for_line(log, /the store #{@store} was deleted, renamed or replaced; waiting/)
      second = capture
      wait_for_shipped(second, log)
      other = "#{@store}-other"
      third = capture_in(other)
      File.rename(@store, "#{@store}-older")
      File.rename(other, @store)
      wait_for_shipped(third, log)
      FileUtils.rm_rf(@store)
      fourth = capture
      wait_for_shipped(fourth, log)
      assert_equal [3, 3], [/was deleted, renamed or replaced/, /now shipping the captures of the store in #{@store}/].map { |line| File.read(log).scan(line).size },
                   File.read(log)
      assert_equal [first, second, third, fourth].sort, remote_list("-q").out.split.sort
      refute_match(/cannot/, File.read(log))
    end

    # As `rm -r store/*` does, or `rm -r store` while the shipper writes.
    def test_a_store_that_was_emptied_in_place_is_opened_anew
      first = capture
      log = watch
      wait_for_shipped(first, log)
      FileUtils.rm_rf(Dir.children(@store).map { |name| File.join(@store, name) })
      second = capture
      wait_for_shipped(second, log)
      assert_equal [first, second].sort, remote_list("-q").out.split.sort
    end

    # It waits for its turn on the lock of the old store.
    def test_a_second_watcher_follows_the_store_too
      capture
      watch
      log = File.join(@root, "second.log")
      @pids << spawn(shipping_env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      wait_for_line(log, /waiting for the shipper/)
      File.rename(@store, "#{@store}-old")
      wait_for_line(log, /the store #{@store} was deleted/)
      capture
      first = @pids.shift
      Process.kill(:TERM, first) && Process.wait(first)
      id = capture
      wait_for_shipped(id, log)
    end

    def test_without_a_remote_in_the_configuration_nothing_is_shipped_and_no_request_obeyed
      @script = start_script
      first = capture
      log = watch
      wait_for_shipped(first, log)
      pending = file_request
      configure
      wait_for_line(log, /names no remote any more: nothing is shipped, and no request is obeyed/)
      wait_for_line(log, /#{pending} was taken back/)
      ignored = write_request_of(pending)
      second = capture
      sleep(3)
      refute shipped?(second)
      refute_match(/requested #{ignored}|cannot be used/, File.read(log))
      assert_empty diagctl!("request", "--list", "--json").json["requests"]
      configure(remote: remote_section)
      wait_for_shipped(second, log)
      assert_equal 1, File.read(log).scan("names no remote any more").size
      wait_for_line(log, /names a remote again/)
      wait_for_line(log, /requested #{ignored}/)
    end

    def test_without_rules_no_request_is_obeyed
      @script = start_script
      first = capture
      log = watch
      wait_for_shipped(first, log)
      pending = file_request
      configure(remote: "url = \"file://#{@files}\"")
      wait_for_line(log, /#{pending} was taken back/)
      ignored = write_request_of(pending)
      wait_for_shipped(capture, log)
      sleep(3)
      refute_match(/requested #{ignored}/, File.read(log))
      assert_equal 4, ask("gc_stat").status
    end

    def test_requests_are_answered_during_an_upload
      large = capture(12 << 20)
      configure(remote: "url = \"file://#{@files}\"\nmax_bandwidth = \"1MiB\"\nflush = \"1s\"\n#{Asking::ALLOW}")
      log = watch
      id = file_request
      wait_until("an answer", deadline: 10, tell: -> { File.read(log) }) { remote_keys.grep(%r{answers/#{id}/}).any? }
      refute shipped?(large)
      # And during the pause after a failure.
      other = File.join(@root, "away")
      File.rename(@files, other)
      wait_for_line(log, /cannot/)
      File.rename(other, @files)
      diagctl!("request", "--cancel", id, "--remote", env: elsewhere)
      wait_for_line(log, /#{id} was taken back: cancelled/)
    end

    # A node that is lost during a large upload has left what it sent before.
    def test_what_has_arrived_is_listed_and_kept_while_a_large_capture_is_under_way
      small = capture
      diagctl!("pin", small)
      large = capture(24 << 20)
      configure(remote: "url = \"file://#{@files}\"\nmax_bandwidth = \"1MiB\"\nflush = \"1s\"\n#{Asking::ALLOW}")
      log = watch
      wait_until("its record has arrived", deadline: 20) { remote_keys.any? { |key| key.end_with?("#{small}/meta.json") } }
      diagctl!("gc", "--remote", "--max-use", "1KiB", env: elsewhere)
      wait_for_shipped(small, log)
      refute shipped?(large)
      assert_equal [small], remote_list("-q").out.split
      assert_includes remote_keys.join(" "), "#{small}/meta.json"
    end

    def test_new_captures_do_not_wait_for_one_that_the_share_refuses
      refused = capture
      ship!
      Dir["#{@files}/captures/*/*/#{refused}/meta.json"].each { |path| FileUtils.rm(path) && File.mkfifo(path) }
      FileUtils.rm(File.join(@store, "reports", refused, "shipped"))
      log = watch
      wait_for_line(log, /cannot read .*#{refused}/)
      # Longer and longer pauses without a new capture.
      sleep(15)
      id = capture
      wait_until("the new one is shipped", deadline: 3, tell: -> { File.read(log) }) { shipped?(id) }
      wait_for_shipped(capture, log)
      refute shipped?(refused)
    end

    def test_a_damaged_capture_is_tried_and_told_once_until_it_is_mended
      bad = capture
      path = File.join(@store, "reports", bad, "blob.bin.gz")
      good = File.binread(path)
      File.write(path, "x", 100)
      log = watch
      wait_for_line(log, /capture #{bad} is damaged/)
      3.times { wait_for_shipped(capture, log) }
      assert_equal 1, File.read(log).scan("is damaged").size
      assert_equal 1, diagctl!("status", "--json").json.dig("shipped", "failures")
      File.binwrite(path, good)
      wait_for_shipped(bad, log)
    end

    def test_a_capture_whose_record_is_damaged_is_told_once_until_it_is_mended
      bad = capture
      record = cut_record(bad)
      log = watch
      wait_for_line(log, /capture #{bad} cannot be shipped/)
      3.times { wait_for_shipped(capture, log) }
      assert_equal 1, File.read(log).scan("cannot be shipped").size
      assert_equal 1, diagctl!("status", "--json").json.dig("shipped", "failures")
      File.binwrite(File.join(@store, "reports", bad, "meta.json"), record)
      wait_for_shipped(bad, log)
    end

    def remote_section = "#{super}\n#{Asking::ALLOW}"

    private

    # A request for a process that is not there, as soon as the node has it.
    def file_request
      id = diagctl!("request", "gc_stat", "--remote", "--name", "nobody", "--reason", "a test", env: elsewhere).out.chomp
      wait_until("#{id} is filed") { diagctl!("request", "--list", "--json").json["requests"].any? }
      id
    end

    # The same request under another name, from somebody who does not ask what the node allows.
    def write_request_of(id)
      key = remote_keys.grep(%r{requests/#{id}~}).first
      ignored = id.sub(/.{8}\z/, "0000beef")
      File.write(File.join(@files, key.sub(id, ignored)), remote_object(key).gsub(id, ignored))
      ignored
    end

    def wait_for_shipped(id, log) = wait_until("#{id} is shipped", deadline: 20, tell: -> { File.read(log) }) { shipped?(id) }

    def wait_for_line(log, line) = wait_until(line.source, deadline: 20, tell: -> { File.read(log) }) { File.read(log).match?(line) }
  end
end
