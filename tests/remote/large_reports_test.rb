# frozen_string_literal: true

require_relative "support/s3_case"

module E2E
  # Captures with two reports that go in parts. The journal remembers both.
  class LargeReportsTest < S3Case
    def test_a_shipper_killed_in_the_second_report_sends_neither_the_first_nor_its_own_parts_again
      id = two_reports(10 << 20, 24 << 20)
      remote(max_bandwidth: "12MiB")
      kill_shipper { journal(id).any? { |upload| upload["key"].end_with?("second.bin.gz") && upload["parts"].size >= 2 } }
      refute shipped?(id)
      faults { nil }
      ship!
      assert_shipped(id)
      assert_empty sent("first.bin.gz"), "the first was complete"
      assert_empty sent("second.bin.gz").grep(/partNumber=[12]\b/), "its first parts were there"
      assert_empty @server.uploads(@bucket)
      refute_path_exists journal_path(id)
    end

    def test_what_was_complete_and_is_gone_is_sent_again_before_the_capture_is_committed
      id = two_reports(10 << 20, 24 << 20)
      remote(max_bandwidth: "12MiB")
      kill_shipper { journal(id).any? { |upload| upload["key"].end_with?("second.bin.gz") } }
      @server.request("DELETE", "/#{@bucket}/fleet/captures/#{remote_keys.grep(/first.bin.gz/).first.partition("captures/").last}")
      assert_empty remote_keys
      remote
      ship!
      assert_shipped(id)
    end

    def test_credentials_that_may_only_write_go_on_as_well
      id = two_reports(10 << 20, 24 << 20)
      remote(max_bandwidth: "12MiB")
      kill_shipper { journal(id).any? { |upload| upload["key"].end_with?("second.bin.gz") } }
      faults { |method, _, _| 403 if %w[GET HEAD].include?(method) }
      ship!
      assert_shipped(id)
      assert_empty sent("first.bin.gz")
    end

    def test_beside_a_damaged_report_the_sound_one_is_uploaded_once
      id = two_reports(10 << 20, 12 << 20)
      path = File.join(@store, "reports", id, "second.bin.gz")
      flip(path, 11 << 20)
      2.times do
        faults { nil }
        result = ship
        assert_equal 1, result.status
        assert_includes result.err, "report second of capture #{id} is damaged"
        assert_empty @server.uploads(@bucket)
      end
      assert_empty(@proxy.requests.grep(/\A(PUT|POST)/))
      flip(path, 11 << 20)
      ship!
      assert_shipped(id)
      refute_path_exists journal_path(id)
    end

    def test_an_upload_that_an_older_version_began_is_resumed_or_aborted
      [true, false].each do |stays|
        id = two_reports(10 << 20, 24 << 20)
        remote(max_bandwidth: "12MiB")
        kill_shipper { journal(id).any? { |upload| upload["key"].end_with?("second.bin.gz") && upload["parts"].any? } }
        File.write(journal_path(id), JSON.dump(journal(id).last.except("sha256", "completed_ms")))
        diagctl!("rm", id) unless stays
        remote
        ship!
        assert_shipped(id) if stays
        assert_empty @server.uploads(@bucket)
        refute_path_exists journal_path(id)
      end
    end

    def test_an_upload_that_cannot_be_recorded_is_aborted
      id = capture(10 << 20)
      # No file can take the place of a directory.
      FileUtils.mkdir_p(journal_path(id), mode: 0o700)
      result = ship
      assert_equal 1, result.status
      assert_includes result.err, journal_path(id)
      assert_empty @server.uploads(@bucket)
    end

    private

    def two_reports(first, second)
      script = { first: first, second: second }.map { |name, bytes| "head -c #{bytes} /dev/urandom > $DIAGCTL_CAPTURE_DIR/#{name}" }
      diagctl!("run", "--", "sh", "-c", script.join("; "), deadline: 300).out.chomp
    end

    def journal_path(id) = File.join(@store, "remote/uploads", id)

    def journal(id) = File.exist?(journal_path(id)) ? JSON.parse(File.read(journal_path(id))) : []

    # The requests about a file that wrote something.
    def sent(file)
      @proxy.requests.select { |request| plain(request).include?(file) && request.start_with?("PUT", "POST") }
    end

    def kill_shipper(&)
      pid = spawn(shipping_env, BIN, "ship", unsetenv_others: true, %i[out err] => File::NULL)
      wait_until("the moment", &)
      Process.kill(:KILL, pid)
      Process.wait(pid)
    end
  end
end
