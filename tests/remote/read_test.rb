# frozen_string_literal: true

require_relative "support/s3_case"
require_relative "support/reading"

module E2E
  # A person reads what the machines have shipped, from a server that speaks S3.
  class ReadTest < S3Case
    include Reading

    def test_each_command_says_the_same_of_a_capture_in_the_remote_as_of_one_here
      first = real_capture
      @script.run("5000.times { Shop::LIST << Object.new.to_s }")
      second = real_capture
      ship!
      [%w[diagnose ID], %w[heap top ID -n 5], %w[heap path ID String], %w[heap waste ID]].each do |command|
        command = command.map { |word| word == "ID" ? second : word }
        here, there = [shipping_env, elsewhere].zip([[], ["--remote"]]).map { |env, more| diagctl!(*command, *more, env: env).out }
        # A process of another machine is requested by the machine, not by its pid.
        here, there = here.gsub(/ --pid \d+/, " --host H"), there.gsub(/ --host \S+/, " --host H")
        assert_equal without_ages(here), without_ages(there).gsub(" --remote", ""), command.join(" ")
      end
      [%w[compare], %w[heap diff]].each do |command|
        here, there = [shipping_env, elsewhere].zip([[], ["--remote"]]).map { |env, more| diagctl!(*command, first, second, *more, env: env).out }
        assert_equal without_ages(here), without_ages(there).gsub(" --remote", ""), command.join(" ")
      end
      here, there = diagctl!("show", second, "--json").json, read!("show", second, "--json").json
      assert_equal here.except("dir"), there.except("dir")
      assert_match(%r{\A#{remote_url}/captures/.*/#{second}\z}, there["dir"])
      assert_match(/^directory +#{remote_url[/\w+/]}:/, read!("show", "latest").out)
      assert_match(/verified 2 captures.*intact/, read!("verify", "--all").out)
      assert_no_view
      refute Dir.exist?(File.join(@root, "no-store"))
    end

    def test_the_trend_of_a_process_is_that_of_its_summaries_in_the_remote
      script = start_script
      3.times do
        script.run("($kept ||= []).concat(Array.new(2000) { Object.new.to_s })")
        diagctl!("request", "heap_summary", "smaps", "--reason", "a test", "--wait", deadline: 90)
      end
      ship!
      here, there = diagctl!("heap", "trend", "--json").json, read!("heap", "trend", "--json").json
      refute_empty there["groups"]
      assert_equal here["groups"], there["groups"]
      refute_match(/RSS is not known/, there["because"].join)
    end

    def test_a_report_that_zstd_makes_very_small
      File.write(config_path, File.read(config_path).sub("[retention]\n", "[retention]\ncompression = \"zstd\"\n"))
      id = diagctl!("run", "--", "sh", "-c", "head -c 100000000 /dev/zero > $DIAGCTL_CAPTURE_DIR/zeros", deadline: 300).out.chomp
      stored, raw = meta(id)["reports"].first.values_at("stored_bytes", "raw_bytes")
      assert_operator raw, :>, 2000 * stored
      ship!
      assert_match(/^verified 1 capture: .*intact$/, read!("verify", "--all").out)
      out = File.join(@root, "zeros")
      read!("fetch", id, "-o", out)
      assert_equal raw, File.size(out)
    end

    def test_reports_are_fetched_whole_and_from_the_cache_the_second_time
      id = real_capture
      ship!
      out = File.join(@root, "out")
      read!("fetch", id, "-o", out)
      diagctl!("fetch", id, "-o", "#{out}-here")
      names = Dir.children("#{out}-here")
      assert_equal names.sort, Dir.children(out).sort
      names.each { |name| assert File.binread(File.join(out, name)) == File.binread(File.join("#{out}-here", name)), name }
      faults { |_, target, _| 500 if target.include?("heap_dump") }
      assert_equal report(id, "heap_dump").b, read!("fetch", "latest:heap_dump", "-o", "-").out.b
      assert_empty(@proxy.requests.grep(/heap_dump/), "it was not asked for again")
      # A damaged file of the cache is fetched anew.
      blobs.each { |blob| File.chmod(0o600, blob) && File.write(blob, "x") }
      remote
      assert_equal report(id, "heap_dump").b, read!("fetch", "latest:heap_dump", "-o", "-").out.b
    end

    def test_machines_with_the_same_id_are_told_apart
      id = capture
      ship!
      key = remote_keys.grep(%r{/#{id}/meta.json}).first
      host = key.split("/")[-3]
      # Another machine has a capture of the same id.
      record = JSON.parse(remote_object(key)).merge("host" => "web-2", "reports" => []).tap { |meta| meta.delete("check") }
      remote_write(key.sub("/#{host}/", "/web-2/"), JSON.dump(record))
      line = JSON.parse(remote_object(remote_keys.grep(/manifests/).first).lines.first).merge("host" => "web-2", "reports" => [])
      remote_write("fleet/manifests/#{key.split("/")[-4]}/web-2~00000000.jsonl", "#{JSON.dump(line)}\n")
      result = read("show", id)
      assert_equal 4, result.status, result
      assert_match(/for 2 machines: .*hint: write HOST/m, result.err)
      assert_equal "web-2", read!("show", "web-2/#{id}", "--json").json["host"]
      assert_equal host, read!("show", id, "--host", host, "--json").json["host"]
      assert_equal 4, read("show", "no-such-machine/#{id}").status
    end

    def test_a_remote_that_breaks_off_is_told_and_nothing_is_kept
      id = capture(3 << 20)
      ship!
      faults { |method, target, _| 503 if method == "GET" && target.include?("blob") }
      result = read("fetch", id, deadline: 200)
      assert_equal 1, result.status, result
      assert_match(/cannot read captures.*blob/, result.err)
      assert_empty blobs
      assert_no_view
    end

    def test_hints_are_for_the_remote
      id = capture
      ship!
      assert_match(/hint: `diagctl request smaps gc_stat object_counts --remote --host \S+ --reason diagnose`/, read("diagnose", id).err)
      assert_match(/`diagctl list --remote` shows.*`diagctl request nope --remote --reason/, read("fetch", "latest:nope", "-o", "-").err)
      assert_match(/no capture in the remote of a machine like "nope\*" matches "latest"/, read("show", "--host", "nope*", "latest").err)
      File.write(config_path, File.read(config_path).sub(/^url = .*/, 'url = "https://x"'))
      result = read("show", id)
      assert_equal 3, result.status, result
      assert_match(/remote.url: "https:/, result.err)
      refute_match(/names no remote/, result.err)
    end

    def test_an_object_that_is_gone_is_missing_and_not_damaged
      id = capture
      ship!
      key = remote_keys.grep(/blob/).first
      @server.request("DELETE", "/#{@bucket}/#{key}")
      result = read("verify", id)
      assert_equal 1, result.status, result
      assert_match(%r{^missing  #{id} blob.bin.gz: it is not in the remote, at #{remote_url}/captures/\S+/#{id}/blob.bin.gz$}, result.out)
      assert_match(/0 files \(0 B\) intact, 1 missing/, result.out)
      refute_match(/damaged|cache/, result.out)
    end

    private

    # Parts that differ between two moments.
    def without_ages(text) = text.gsub(/\d+(ms|s)\b( ago)?|just now/, "AGE").gsub(/\d+m AGE/, "AGE")
  end
end
