# frozen_string_literal: true

require_relative "support/s3_case"

module E2E
  # `doctor --remote` says what the credentials may do.
  class DoctorTest < S3Case
    def checks(env: shipping_env)
      checks = diagctl("doctor", "--remote", "--json", env: env).json["checks"]
      checks.select { |check| check["id"].start_with?("remote.") }.to_h { |check| [check["id"], check] }
    end

    # False where unfinished uploads end by themselves.
    def aborts_by_rule? = true

    def test_all_rights_are_found_and_nothing_is_left
      capture
      found = checks
      skipped = found.delete("remote.uploads")
      assert_includes skipped["message"], "AbortIncompleteMultipartUpload" if aborts_by_rule?
      assert_match(/no capture of the last month is there/, found.delete("remote.encryption")["message"])
      assert_equal %w[remote.write remote.read remote.list remote.clock remote.delete], found.keys
      assert_equal ["ok"], found.values.map { |check| check["status"] }.uniq, found
      assert_empty remote_keys
    end

    def test_a_node_that_may_only_write_is_as_it_should_be
      capture
      faults { |method, target, _| 403 if %w[GET HEAD DELETE].include?(method) || (method == "POST" && target.match?(/delete|comp=batch/)) }
      found = checks.except("remote.uploads")
      assert_match(/the credentials may not read captures/, found.delete("remote.encryption")["message"])
      assert_equal ["ok"], found.values.map { |check| check["status"] }.uniq, found
      assert_match(/may not read/, found["remote.read"]["message"])
      assert_match(/may not list/, found["remote.list"]["message"])
      assert_match(/may not delete, as it should be on a node/, found["remote.delete"]["message"])
      2.times { checks }
      assert_equal 1, remote_keys.size, "one object a machine, however often it runs"
    end

    def test_doctors_of_one_name_at_once_disturb_no_verdict
      capture
      found = Array.new(6) { Thread.new { Array.new(2) { checks } } }.flat_map(&:value)
      # On a slow machine the others may come in between each time.
      assert_empty found.map { |checks| checks["remote.read"]["status"] }.uniq - %w[ok warn], found
    end

    def test_what_another_doctor_has_written_is_no_verdict_until_it_is_always_so
      capture
      disturbed, writes = 0, 2
      faults do |method, target, _|
        target = plain(target)
        if method == "GET" && target.include?("~doctor.json") && (disturbed += 1) <= writes
          remote_write("fleet/#{target[%r{probes/.*}]}", "{\"doctor\":\"0123456789abcdef\"}\n")
        end
        nil
      end
      assert_equal "ok", checks["remote.read"]["status"]
      assert_equal 3, disturbed
      disturbed, writes = 0, 99
      read = checks["remote.read"]
      assert_equal ["warn", "another doctor has written the same object, again and again"], [read["status"], read["message"]]
      assert_equal 5, disturbed
    end

    # The machine of a person who may not write, with what `list` leaves out.
    def test_a_reader_is_warned_of_manifests_that_are_left_out
      capture
      ship!
      manifest = remote_keys.grep(/manifests/).first
      remote_write(manifest.sub(/~\h+/, "~1"), remote_object(manifest))
      remote_write(manifest.sub(/~\h+/, "~2"), "{\"id\"")
      refused = "~1.jsonl"
      faults { |method, target, _| 403 if method == "PUT" || (method == "GET" && plain(target).include?(refused)) }
      read = checks(env: shipping_env.merge("DIAGCTL_DIR" => File.join(@root, "none")))["remote.read"]
      assert_equal "warn", read["status"], read
      assert_includes read["message"], "1 of today, and others may be missing: 1 manifest cannot be read and 1 manifest with damaged lines"
      assert_includes read["hint"], "`diagctl list --remote` names them"
    end

    def test_what_stops_shipping_fails_with_what_to_do
      capture
      @bucket = "no-such-bucket"
      remote
      found = checks
      assert_equal "fail", found["remote.write"]["status"], found
      assert_match(/nothing can be shipped.*#{codes[1]}/, found["remote.write"]["message"])
      assert_match(/check remote.url/, found["remote.write"]["hint"])
      only_on_a_server_that_checks
      @bucket = "another"
      @server.create_bucket(@bucket)
      remote
      result = diagctl("doctor", "--remote", env: wrong_key)
      assert_equal 1, result.status
      assert_match(/check the credentials, and the clock/, result.out)
    end

    # The answer to a list says that the object was written an hour ago.
    def test_a_clock_that_is_wrong_is_told
      capture
      faults { |method, target, _| :stale if method == "GET" && target.match?(/list-type|comp=list/) }
      check = checks["remote.clock"]
      assert_equal "warn", check["status"]
      assert_match(/differ by (59m|1h)/, check["message"])
    end

    # Of these servers, only Azurite says that it encrypts.
    def test_it_is_said_what_is_encrypted_and_to_how_many
      capture
      ship!
      plain = checks["remote.encryption"]
      assert_match(%r{diagctl encrypted no report of the newest capture \(\S+/\S+\), which has 1}, plain["message"])
      assert_equal plain["message"].include?("the remote does not say") ? "warn" : "ok", plain["status"]
      keys = Array.new(2) { `age-keygen 2>/dev/null`[/public key: (\S+)/, 1] || skip("age is not installed") }
      remote
      File.write(config_path, "#{File.read(config_path)}\n[encrypt]\nrecipients = #{keys.inspect}\n")
      id = capture
      ship!
      encrypted = checks["remote.encryption"]
      assert_equal "ok", encrypted["status"]
      assert_match(/encrypted reports of the newest capture \(\S+#{id}\): 1 of 1, to 2 recipients/, encrypted["message"])
    end

    def test_on_the_machine_of_a_person_no_store_is_asked_for
      result = diagctl("doctor", "--remote", env: shipping_env.merge("DIAGCTL_DIR" => File.join(@root, "none")))
      assert result.ok?, result
      assert_match(/there is no store on this machine/, result.out)
      refute_match(/install -d|DIAGCTL_ENABLED|processes/, result.out)
      assert_match(/^ok +remote.write/, result.out)
    end

    def test_without_a_remote_the_check_that_was_asked_for_fails
      configure
      capture
      write = checks["remote.write"]
      assert_equal "fail", write["status"]
      assert_match(/the configuration names no remote/, write["message"])
      assert_match(/add the table with `printf/, write["hint"])
    end

    def test_a_person_must_be_able_to_read
      faults { |method, _, _| 403 if %w[GET HEAD].include?(method) }
      elsewhere = shipping_env.merge("DIAGCTL_DIR" => File.join(@root, "none"))
      found = diagctl("doctor", "--remote", "--json", env: elsewhere).json["checks"].to_h { |check| [check["id"], check] }
      assert_equal %w[fail fail], %w[remote.read remote.list].map { |id| found[id]["status"] }
      assert_match(/no command with --remote works here/, found["remote.read"]["message"])
      capture
      found = checks
      assert_equal %w[ok ok], %w[remote.read remote.list].map { |id| found[id]["status"] }
    end
  end
end
