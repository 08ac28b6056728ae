# frozen_string_literal: true

require_relative "ship_test"
require_relative "read_test"
require_relative "gc_test"
require_relative "request_test"
require_relative "doctor_test"
require_relative "support/cloud_case"

module E2E
  class ShipToAzureTest < ShipTest
    include OnAzure

    # Azure drops the blocks by itself after a week.
    def unfinished_uploads = []

    def test_the_upload_of_a_capture_that_was_deleted_is_aborted = skip("Azure has no uploads that could be aborted")

    def test_credentials_come_from_a_command = skip("Azurite takes tokens over TLS only")

    def test_a_body_that_was_changed_on_the_way_is_noticed_although_the_server_takes_it
      id = capture
      faults { |method, target, _| :flip if method == "PUT" && target.include?("blob.bin.gz") }
      result = ship(deadline: 120)
      assert_equal 1, result.status, result
      assert_match(/the remote received something else than what was sent: (MD5|CRC64) \S+ instead of/, result.err)
      refute shipped?(id)
      assert_empty remote_keys.grep(/meta.json/)
    end

    def test_two_uploads_of_one_object_do_no_harm_although_the_second_takes_the_blocks_of_the_first
      id = capture(40 << 20)
      remote(max_bandwidth: "8MiB")
      other = File.join(@root, "other")
      FileUtils.cp_r(@store, other)
      slow = Thread.new { ship(deadline: 120) }
      wait_until("an upload") { File.exist?(File.join(@store, "remote/uploads", id)) }
      fast = File.join(@root, "fast.toml")
      File.write(fast, File.read(config_path).sub(/^max_bandwidth.*/, ""))
      result = ship(env: shipping_env.merge("DIAGCTL_DIR" => other, "DIAGCTL_CONFIG" => fast))
      assert result.ok?, result
      assert slow.value.ok?, slow.value
      assert_shipped(id)
    end

    def test_without_an_account_the_configuration_is_refused_with_what_to_write
      capture
      configure(remote: "url = \"#{remote_url}\"\n")
      result = ship
      assert_equal 3, result.status
      assert_match(%r{az://\S+ names no storage account\n  hint: add endpoint = "https://ACCOUNT.blob.core.windows.net"}, result.err)
    end
  end

  class ReadFromAzureTest < ReadTest
    include OnAzure
  end

  class DeletingFromAzureTest < DeletingFromS3Test
    include OnAzure
  end

  class RequestThroughAzureTest < RequestThroughS3Test
    include OnAzure
  end

  class DoctorOfAzureTest < DoctorTest
    include OnAzure

    def aborts_by_rule? = false
  end

  class ShipToGoogleTest < ShipTest
    include OnGoogle

    def test_credentials_come_from_a_command
      id = capture
      program = File.join(@root, "credentials")
      File.write(program, "#!/bin/sh\necho '{\"access_token\": \"a-token\", \"expires_in\": 3600}'\n")
      File.chmod(0o700, program)
      remote(credential_command: [program])
      ship!(env: shipping_env.except("GOOGLE_BEARER_TOKEN"))
      assert_shipped(id)
    end
  end

  class ReadFromGoogleTest < ReadTest
    include OnGoogle
  end

  class DeletingFromGoogleTest < DeletingFromS3Test
    include OnGoogle
  end

  class RequestThroughGoogleTest < RequestThroughS3Test
    include OnGoogle
  end

  class DoctorOfGoogleTest < DoctorTest
    include OnGoogle
  end
end
