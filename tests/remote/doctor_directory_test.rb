# frozen_string_literal: true

require_relative "support/directory_case"

module E2E
  # `doctor --remote` where the remote is a directory.
  class DoctorOfDirectoryTest < DirectoryCase
    NOBODY = 65_534

    def test_a_directory_on_the_disk_of_the_store_is_told_and_no_failure
      capture
      result = doctor
      assert result.ok?, result
      disk = checks(result)["remote.disk"]
      assert_equal "warn", disk["status"]
      assert_match(/#{@files} is on the filesystem of the store/, disk["message"])
      assert_match(/is the share mounted\?/, disk["hint"])
      assert_equal "ok", checks(result)["remote.write"]["status"]
    end

    def test_a_directory_on_another_filesystem_is_as_it_should_be
      skip "/dev/shm is on the filesystem of the store" if File.stat("/dev/shm").dev == File.stat(@root).dev
      Dir.mktmpdir("diagctl-e2e-", "/dev/shm") do |files|
        configure(remote: "url = \"file://#{files}\"")
        capture
        assert_equal "ok", checks(doctor)["remote.disk"]["status"]
      end
    end

    # Each deletes the directory of the probes when it is empty.
    def test_doctors_at_once_disturb_no_verdict
      capture
      found = Array.new(6) { Thread.new { Array.new(3) { checks(doctor) } } }.flat_map(&:value)
      assert_equal([%w[ok ok]], found.map { |checks| %w[remote.write remote.read].map { |id| checks.dig(id, "status") } }.uniq)
    end

    def test_on_the_machine_of_a_person_no_disk_is_compared
      of_a_person = -> { checks(doctor(env: shipping_env.merge("DIAGCTL_DIR" => File.join(@root, "none"))))["remote.disk"] }
      assert_equal "nothing was ever sent to #{@files}", of_a_person.call["message"]
      capture
      ship!
      assert_nil of_a_person.call
    end

    def test_a_person_who_may_only_read_needs_no_more
      skip "only root becomes another user" unless Process.uid.zero?
      capture
      ship!
      assert_equal [0o700], Dir.glob(File.join(@files, "**/")).drop(1).map { |dir| File.stat(dir).mode & 0o777 }.uniq
      refused = doctor_of_a_reader
      assert_equal 1, refused.status, refused
      read = checks(refused)["remote.read"]
      assert_equal "fail", read["status"], refused
      assert_match(/captures cannot be listed: .*Permission denied/, read["message"])
      assert_match(%r{docs/fleet.md, Rights}, read["hint"])
      assert_match(/the remote does not work; failed: 1/, doctor_of_a_reader(json: false).out)
      FileUtils.chmod_R("a+rX", @files)
      found = doctor_of_a_reader
      assert found.ok?, found
      assert_equal(%w[ok ok], %w[remote.write remote.read].map { |id| checks(found)[id]["status"] })
      assert_match(/you may not write there: a reader needs no more/, checks(found)["remote.write"]["message"])
      assert_match(/captures can be listed; 1 of today/, checks(found)["remote.read"]["message"])
    end

    # As `ship` says it.
    def test_a_share_that_is_not_mounted_fails_and_gets_nothing
      capture
      FileUtils.rm_rf(@files) && Dir.mkdir(@files)
      assert_equal "ok", checks(doctor)["remote.write"]["status"], "nothing was sent to it yet"
      ship!
      FileUtils.rm_rf(@files) && Dir.mkdir(@files)
      result = doctor
      assert_equal 1, result.status, result
      write = checks(result)["remote.write"]
      assert_equal "fail", write["status"]
      capture
      told = ship.err
      [write["message"].delete_prefix("nothing can be shipped: "), write["hint"]].each { |words| assert_includes told, words }
      assert_match(/has none of the captures that were sent to it/, told)
      assert_empty Dir.children(@files), "no probe in the mount point"
      FileUtils.rm_rf(@files)
      missing = checks(doctor)["remote.write"]
      assert_equal "fail", missing["status"]
      assert_includes ship.err, missing["message"].delete_prefix("nothing can be shipped: ")
    end

    # Another user has sent captures to it before: the directory itself is writable.
    def test_a_directory_that_another_user_has_made_in_it_fails
      capture
      ship!
      FileUtils.chown_R(NOBODY, NOBODY, [@files, @store]) if Process.uid.zero?
      assert_equal "ok", checks(doctor)["remote.write"]["status"]
      Dir.glob(["captures", "captures/*", "captures/*/*", "manifests", "manifests/*"], base: @files).each do |name|
        closed = File.join(@files, name)
        close(closed) do |owner|
          result = doctor
          assert_equal 1, result.status, result
          write = checks(result)["remote.write"]
          assert_equal "fail", write["status"], name
          assert_match(/captures cannot be shipped: #{closed} belongs to uid #{owner}, and uid \d+ may not write there/, write["message"])
          assert_match(/a directory of its own in remote.url/, write["hint"])
        end
      end
    end

    def test_a_closed_directory_for_probes_stops_no_shipment
      capture
      ship!
      Dir.mkdir(File.join(@files, "probes"))
      FileUtils.chown_R(NOBODY, NOBODY, [@files, @store]) if Process.uid.zero?
      close(File.join(@files, "probes")) do
        result = doctor
        assert result.ok?, result
        write = checks(result)["remote.write"]
        assert_equal "warn", write["status"]
        assert_match(/captures can be shipped, but doctor cannot write its probe: cannot create #{@files}/, write["message"])
      end
    end

    def test_a_node_that_obeys_requests_must_be_able_to_answer
      capture
      %w[captures manifests nodes].each { |name| Dir.mkdir(File.join(@files, name)) }
      FileUtils.chown_R(NOBODY, NOBODY, [@files, @store]) if Process.uid.zero?
      close(File.join(@files, "nodes")) do |owner|
        assert_nil checks(doctor)["remote.requests"]
        configure(remote: "url = \"file://#{@files}\"\n[remote.requests]\nallow_reports = [\"gc_stat\"]\nallow_requesters = [\"*\"]")
        result = doctor
        assert_equal 1, result.status, result
        requests = checks(result)["remote.requests"]
        assert_equal "fail", requests["status"]
        assert_match(/no request can be obeyed: \S+nodes belongs to uid #{owner}, and uid \d+ may not write there/, requests["message"])
        assert_equal "ok", checks(result)["remote.write"]["status"]
      end
    end

    private

    def doctor(env: shipping_env) = diagctl("doctor", "--remote", "--json", env: env)

    # Other users may have no access to the working copy.
    def doctor_of_a_reader(json: true)
      FileUtils.cp([BIN, REMOTE_BIN], @root)
      File.chmod(0o755, @root, File.join(@root, "diagctl"))
      File.chmod(0o644, config_path)
      environment = env(DIAGCTL_DIR: File.join(@root, "none"), DIAGCTL_BIN: nil, PATH: ENV.fetch("PATH"))
      reader = %w[setpriv --reuid=4321 --regid=4321 --clear-groups]
      Command.run(*reader, File.join(@root, "diagctl"), "doctor", "--remote", *("--json" if json), env: environment)
    end

    def checks(result) = result.json["checks"].to_h { |check| [check["id"], check] }

    # Takes the right to write from the user that ships. Root acts as the owner of the store, which is nobody.
    def close(path)
      File.chown(0, 0, path) if Process.uid.zero?
      File.chmod(0o555, path)
      yield File.stat(path).uid
    ensure
      File.chown(NOBODY, NOBODY, path) if Process.uid.zero?
      File.chmod(0o755, path)
    end
  end
end
