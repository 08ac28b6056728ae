# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/s3_case"
require_relative "support/reading"
require_relative "support/asking"

module E2E
  # A person asks machines through the remote, and each decides by itself.
  module Requesting
    include Asking

    def test_a_request_becomes_a_capture_that_can_be_read_at_once
      @script = start_script
      log = watch
      result = ask("gc_stat", "--host", "*", "--sample", "3")
      assert result.ok?, result
      assert_match(/is for 1 node: .*; each looks within 1s/, result.err)
      address = result.out.chomp
      assert_match(%r{\A[^/]+/\d{8}T\d{9}Z-\h{8}\z}, address)
      meta = read!("show", address, "--json").json
      assert_match(/a test/, meta["trigger"]["reason"])
      assert_match(/requested \S+: gc_stat by root, a test/, File.read(log))
      assert_equal 1, captures.size, "once"
    end

    def test_an_interrupted_wait_says_that_the_request_goes_on_and_how_to_cancel_it
      @script = start_script
      watch
      reader, writer = IO.pipe
      argv = [BIN, "request", "gc_stat", "--remote", "--reason", "a test", "--wait", "--name", "no-such-worker"]
      pid = spawn(elsewhere, *argv, unsetenv_others: true, out: File::NULL, err: writer)
      writer.close
      id = reader.gets[/request (\S+) is for 1 node:/, 1]
      # It waits from its first look on, which comes before the first answer is told.
      reader.gets
      Process.kill(:INT, pid)
      assert_equal 130, Process.wait2(pid).last.exitstatus
      assert_match(/^diagctl: request #{id} goes on; `diagctl request --cancel #{id} --remote` cancels it$/, reader.read)
      assert diagctl("request", "--cancel", id, "--remote", env: elsewhere).ok?
    end

    def test_what_the_node_does_not_allow_is_refused_with_the_reason
      @script = start_script
      watch
      result = ask("threads")
      assert_equal 4, result.status, result
      assert_match(/\Adiagctl: no node allows threads\n  hint: \S+ allows gc_stat, heap_summary\n\z/, result.err)
      # One that is written past the check of the person's own program.
      node = File.basename(remote_keys.grep(%r{nodes/}).first, ".json")
      { { "reports" => ["threads"] } => /threads is not in remote.requests.allow_reports of this node/,
        { "by" => "mallory" } => /mallory is not in remote.requests.allow_requesters of this node/,
        { "reason" => "" } => /does not say who wants it and why/,
        { "reports" => ["../../x"] } => /is not a report/ }.each_with_index do |(change, reason), n|
        id = format("%s-%08x", compact, n)
        ticket = { schema: 1, id: id, nodes: [node], reports: ["gc_stat"], reason: "r", by: "root", expires_ms: 60_000 }
        write_request(id, ticket.transform_keys(&:to_s).merge(change))
        answer = wait_until("an answer") { remote_keys.grep(%r{answers/#{id}/}).first }
        assert_match reason, JSON.parse(remote_object(answer))["reason"]
      end
      assert_empty captures
    end

    def test_two_stores_of_one_machine_are_told_apart
      @script = start_script
      watch
      other = File.join(@root, "other-store")
      capture_in(other)
      watch(shipping_env.merge("DIAGCTL_DIR" => other))
      nodes = remote_keys.grep(%r{nodes/}).map { |key| File.basename(key, ".json") }
      mine = nodes.find { |node| node.end_with?("~#{File.read(File.join(@store, "remote/node"))}") }
      host = mine.split("~").first
      result = ask("gc_stat", "--host", mine)
      assert result.ok?, result
      assert_match(%r{\A#{host}/\S+\Z}, result.out)
      assert_match(/is for 1 node: #{mine}; each/, result.err)
      # Both, each with its place.
      result = ask("gc_stat", "--host", host, "--expires", "2s")
      assert_equal 5, result.status, result
      nodes.each { |node| assert_includes result.err, "#{node} (#{node == mine ? @store : other})" }
      assert_match(/^diagctl: #{(nodes - [mine]).first}: no capture: no process took it/, result.err)
      assert_equal 2, captures.size
    end

    def test_a_machine_that_nobody_knows_is_told_with_those_that_are_there
      assert_match(/no node obeys requests through this remote\n  hint: a node obeys with \[remote.requests\]/, ask("gc_stat").err)
      @script = start_script
      watch
      host = File.basename(remote_keys.grep(%r{nodes/}).first).split("~").first
      result = ask("gc_stat", "--host", "#{host}x")
      assert_equal 4, result.status, result
      assert_match(/\Adiagctl: no node like "#{host}x" obeys requests\n  hint: #{host} does; /, result.err)
    end

    def test_a_node_obeys_only_so_many_an_hour_and_none_twice
      @script = start_script
      watch
      2.times { assert ask("gc_stat").ok? }
      result = ask("gc_stat")
      assert_equal 1, result.status, result
      assert_match(/refused: this node has accepted 2 requests within an hour/, result.err)
      # A shipper that is started anew remembers.
      Process.kill(:KILL, @pids.first) && Process.wait(@pids.shift)
      remove_answers
      watch
      assert_match(/refused: this node has accepted 2 requests/, ask("gc_stat").err)
      assert_equal 2, captures.size
      assert_equal 1, remote_keys.grep(%r{answers/}).size, "of the last request"
    end

    # Otherwise somebody who cancels each request, or deletes its capture, would get any number of captures.
    def test_a_request_counts_whatever_became_of_it
      @script = start_script
      watch
      assert_match(/no process took it before it expired/, ask("gc_stat", "--name", "no-such-worker", "--expires", "1s").err)
      assert ask("gc_stat").ok?
      diagctl!("rm", *captures.map { |capture| capture["id"] })
      assert_match(/refused: this node has accepted 2 requests within an hour/, ask("gc_stat").err)
    end

    def test_a_shipper_that_was_killed_before_it_remembered_obeys_no_request_twice
      @script = start_script
      watch
      assert ask("gc_stat").ok?
      Process.kill(:KILL, @pids.first) && Process.wait(@pids.shift)
      File.delete(File.join(@store, "remote/requests.json"))
      remove_answers
      watch
      answer = wait_until("it is answered again") { remote_keys.grep(%r{answers/}).find { |key| remote_object(key).include?("captured") } }
      assert_equal captures.map { |capture| capture["id"] }, [JSON.parse(remote_object(answer))["capture"]]
    end

    def test_a_request_cannot_wait_longer_than_a_node_accepts
      assert_match(/waits for 2d, which is longer than 24h\n.*use --expires 24h/m, ask("gc_stat", "--expires", "48h").err)
    end

    def test_a_request_that_nobody_takes_expires_with_the_reason
      @script = start_script
      watch
      result = ask("gc_stat", "--name", "no-such-worker", "--expires", "2s")
      assert_equal 1, result.status, result
      assert_match(/no capture: no process took it before it expired/, result.err)
    end

    def test_an_expired_request_under_another_expiry_is_not_obeyed_again
      @script = start_script
      log = watch
      assert_match(/no process took it before it expired/, ask("gc_stat", "--name", "no-such-worker", "--expires", "1s").err)
      key = remote_keys.grep(%r{requests/}).first
      ticket = JSON.parse(remote_object(key))
      write_request(ticket["id"], ticket)
      # One that comes later is answered, so the other was seen.
      other = "#{compact}-00000001"
      write_request(other, ticket.merge("id" => other, "by" => "mallory"))
      wait_until("an answer") { remote_keys.grep(%r{answers/#{other}/}).first }
      assert_equal 1, File.read(log).scan(/^requested #{ticket["id"]}/).size, File.read(log)
    end

    def test_requests_are_off_unless_the_node_allows_reports
      configure(remote: remote_section.sub(/^\[remote.requests\].*/m, ""))
      log = File.join(@root, "ship.log")
      @pids << spawn(shipping_env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      id = capture
      wait_until("the capture", tell: -> { File.read(log) }) { shipped?(id) }
      assert_empty remote_keys.grep(%r{nodes/})
      assert_equal 4, ask("gc_stat").status
    end
  end

  class RequestThroughS3Test < S3Case
    include Reading
    include Requesting

    def setup
      super
      configure(remote: remote_section)
    end

    def remote_section = "url = \"#{remote_url}\"\nendpoint = \"#{@server.endpoint}\"\n#{Asking::ALLOW}"

    def write_request(id, ticket) = remote_write("fleet/requests/#{id}~#{compact(3600)}.json", JSON.dump(ticket))

    def remove_answers = remote_keys.grep(%r{answers/}).each { |key| @server.request("DELETE", "/#{@bucket}/#{key}") }
  end

  class RequestThroughDirectoryTest < DirectoryCase
    include Reading

    def test_the_list_gives_the_reasons_of_answers
      id = format("%s-%08x", compact, 1)
      answers = { "web-1~00000001" => %w[refused the\ budget\ is\ spent], "web-2~00000001" => %w[waiting the\ lease\ is\ held] }
      write_request(id, { schema: 1, id: id, nodes: answers.keys + ["web-3~00000001"], reports: ["gc_stat"], reason: "slow", by: "ann", expires_ms: 60_000 })
      FileUtils.mkdir_p(File.join(@files, "answers", id))
      answers.each do |node, (state, reason)|
        File.write(File.join(@files, "answers", id, "#{node}.json"), JSON.dump(schema: 1, host: node[/[^~]+/], state: state, reason: reason, at: ""))
      end
      list = ->(*options, **more) { diagctl!("request", "--list", "--remote", *options, env: elsewhere.merge(more.transform_keys(&:to_s))) }
      assert_includes list.(COLUMNS: "200").out, "1 refused, 1 waiting, 1 unanswered; web-1 refused: the budget is spent; web-2 waits: the lease is held"
      narrow = list.(COLUMNS: "80").out
      assert_operator narrow.lines.map { |line| line.chomp.length }.max, :<=, 80, narrow
      ["web-1 refused: the budget is spent", "web-2 waits: the lease is held"].each { |why| assert_includes narrow.gsub(/\n\s+/, " "), why }
      assert_equal answers.transform_values(&:last), list.("--json").json.dig("requests", 0, "answers").transform_values { |answer| answer["reason"] }
    end

    # Whoever may write to the remote may have written them.
    def test_secrets_in_requests_and_answers_are_hidden
      id, node = format("%s-%08x", compact, 1), "web-1~00000001"
      secret = "see https://u:S3KRET@h/"
      write_request(id, { schema: 1, id: id, nodes: [node], reports: ["gc_stat"], reason: secret, by: secret, expires_ms: 60_000 })
      FileUtils.mkdir_p(File.join(@files, "answers", id))
      File.write(File.join(@files, "answers", id, "#{node}.json"), JSON.dump(schema: 1, host: "web-1", state: "refused", reason: secret, at: ""))
      [[], ["--json"]].each do |options|
        listed = diagctl!("request", "--list", "--remote", *options, env: elsewhere.merge("COLUMNS" => "200"))
        refute_includes listed.out, "S3KRET"
        assert_includes listed.out, "(hidden)@h"
      end
      assert_equal "see https://(hidden)@h/", diagctl!("request", "--list", "--remote", "--json", env: elsewhere).json.dig("requests", 0, "answers", node, "reason")
    end
    include Requesting

    def remote_section = "#{super}\n#{Asking::ALLOW}"

    def write_request(id, ticket)
      FileUtils.mkdir_p(File.join(@files, "requests"))
      File.write(File.join(@files, "requests/#{id}~#{compact(3600)}.json"), JSON.dump(ticket))
    end

    def remove_answers = FileUtils.rm_rf(File.join(@files, "answers"))

    def test_a_shipper_that_is_killed_before_it_could_answer_remembers_how_many_it_accepted
      @script = start_script
      FileUtils.mkdir_p(@files)
      File.write(File.join(@files, "answers"), "no directory")
      watch
      diagctl!("request", "gc_stat", "--remote", "--reason", "a test", env: elsewhere)
      wait_until("a capture") { captures.any? }
      Process.kill(:KILL, @pids.first) && Process.wait(@pids.shift)
      assert_equal 1, JSON.parse(File.read(File.join(@store, "remote/requests.json"))).fetch("accepted").size
    end
  end
end
