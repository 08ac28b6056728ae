# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/s3_case"
require_relative "support/reading"
require_relative "support/asking"

module E2E
  # Changes while a request waits, or while a node obeys: rules, cancellations, reasons, the expiry.
  module RequestChanges
    include Asking

    NOBODY = ALLOW.sub('["r*"]', '["nobody"]')

    def test_a_permission_that_is_taken_back_counts_at_the_next_look
      @script = start_script
      log = watch
      assert ask("gc_stat").ok?
      pending = file_request("gc_stat", "--name", "no-such-worker")
      wait_for(pending, final: false)
      allow(NOBODY)
      wait_until("the change counts", tell: -> { File.read(log) }) { File.read(log).include?("request #{pending} was taken back") }
      assert_includes File.read(log), "the changed [remote.requests] counts from now on"
      assert_match(/request #{pending} was taken back: .*root is not in remote.requests.allow_requesters of this node/, File.read(log))
      assert_match(/allow_requesters/, wait_for(pending)["answers"].values.first["reason"])
      result = ask("gc_stat")
      assert_equal 1, result.status, result
      assert_match(/refused: root is not in remote.requests.allow_requesters of this node/, result.err)
      assert_match(/refused \S+: gc_stat by root, a test: root is not in remote.requests.allow_requesters/, File.read(log))
      assert_equal 1, captures.size
    end

    def test_a_broken_file_changes_nothing_and_is_told_once
      @script = start_script
      log = watch
      File.write(config_path, "colour = ")
      wait_until("it is told", tell: -> { File.read(log) }) { File.read(log).include?("the changed configuration cannot be used") }
      allow(ALLOW)
      assert ask("gc_stat").ok?
      assert_equal 1, File.read(log).scan("cannot be used").size, File.read(log)
      refute_includes File.read(log), "counts from now on"
    end

    def test_requests_are_turned_on_and_off_without_a_restart
      @script = start_script
      allow("")
      log = File.join(@root, "ship-0.log")
      @pids << spawn(shipping_env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      shipped = capture
      wait_until("it is at work", tell: -> { File.read(log) }) { shipped?(shipped) }
      allow(ALLOW)
      capture # The shipper has something to do, and looks.
      wait_until("an announcement", tell: -> { File.read(log) }) { remote_keys.grep(%r{nodes/}).any? }
      assert ask("gc_stat").ok?
      allow("")
      wait_until("it is off", tell: -> { File.read(log) }) { JSON.parse(remote_object(remote_keys.grep(%r{nodes/}).first))["allow_reports"].empty? }
      assert_equal 4, ask("gc_stat").status
    end

    def test_a_request_is_listed_and_cancelled_and_no_node_obeys_it_afterwards
      @script = start_script
      watch
      id = file_request("gc_stat", "--name", "no-such-worker")
      assert_match(/no matching process has polled/, wait_for(id, final: false)["answers"].values.first["reason"])
      assert_match(/^#{id}.*1 waiting: no matching process/, table)
      result = diagctl!("request", "--cancel", id[0, 25], "--remote", env: elsewhere)
      assert_equal id, result.out.chomp
      listed = wait_for(id)
      assert_equal [true, "failed"], [listed["cancelled"], listed["answers"].values.first["state"]]
      assert_match(/cancelled by root through the remote/, listed["answers"].values.first["reason"])
      assert_equal true, listed["answers"].values.first["cancelled"]
      assert_match(/^#{id}.* cancelled$/, table)
      assert_empty diagctl!("request", "--list", "--json").json["requests"], "the store has it no more"
      assert_equal 4, diagctl("request", "--cancel", "2020", "--remote", env: elsewhere).status
    end

    def test_who_waits_for_a_request_that_is_cancelled_is_told_so
      @script = start_script
      watch
      waiting = Thread.new { ask("gc_stat", "--name", "no-such-worker") }
      id = wait_until("a request") { requests.first&.fetch("id") }
      wait_for(id, final: false)
      diagctl!("request", "--cancel", id, "--remote", env: elsewhere)
      result = waiting.value
      assert_equal 1, result.status, result
      assert_match(/^diagctl: \S+: cancelled by root through the remote$/, result.err)
      refute_match(/no capture|failed/, result.err)
      # By somebody on the node itself.
      id = file_request("gc_stat", "--name", "no-such-worker")
      wait_for(id, final: false)
      diagctl!("request", "--cancel", id)
      wait_for(id)
      assert_match(/^#{id}.* 1 cancelled: cancelled by root/, table)
    end

    # The capture under way may be for it, and then it goes on.
    def test_what_is_cancelled_on_the_node_is_answered_after_the_capture_under_way
      @script = start_script
      watch
      go_on = File.join(@root, "go-on")
      wait = "until [ -e #{go_on} ]; do sleep 0.1; done"
      capturing = spawn(env, BIN, "run", "--report", "blob", "--", "sh", "-c", wait, unsetenv_others: true, %i[out err] => File::NULL)
      wait_until("a capture under way") { Dir.children(File.join(@store, "staging")).any? }
      first, second = Array.new(2) { file_request("gc_stat", "--name", "no-such-worker").tap { |id| wait_for(id, final: false) } }
      diagctl!("request", "--cancel", first)
      # The next look passes the first one by.
      diagctl!("request", "--cancel", second, "--remote", env: elsewhere)
      wait_until("the cancellation on the node") { diagctl!("request", "--list", "--json").json["requests"].empty? }
      assert_equal %w[waiting waiting], requests.flat_map { |request| request["answers"].values.map { |answer| answer["state"] } }
      FileUtils.touch(go_on)
      Process.wait(capturing)
      assert_equal [true, true], [first, second].map { |id| wait_for(id)["answers"].values.first["cancelled"] }
    end

    def test_a_thousand_expired_and_cancelled_requests_hide_none
      @script = start_script
      600.times do |n|
        name = format("requests/%s-%08x~%s", compact(-7200), n, compact(-3600))
        ["", "~cancelled"].each { |kind| write_remote("#{name}#{kind}.json", "{}") }
      end
      watch
      assert ask("gc_stat").ok?
      id = file_request("gc_stat", "--name", "no-such-worker")
      assert_match(/^#{id}/, table)
      diagctl!("request", "--cancel", id, "--remote", env: elsewhere)
      assert_match(/cancelled by root/, wait_for(id)["answers"].values.first["reason"])
    end

    def test_a_request_that_was_cancelled_before_a_node_saw_it_is_never_obeyed
      @script = start_script
      watch
      node = File.basename(remote_keys.grep(%r{nodes/}).first, ".json")
      Process.kill(:STOP, @pids.first)
      # `diagctl ship` is the program itself.
      id = file_request("gc_stat")
      diagctl!("request", "--cancel", id, "--remote", env: elsewhere)
      Process.kill(:CONT, @pids.first)
      listed = wait_for(id)
      assert_match(/cancelled by root/, listed["answers"].fetch(node)["reason"])
      assert_empty captures
    end

    def test_waiting_says_what_the_node_waits_for_and_ends_with_the_request
      @script = start_script
      watch
      diagctl!("pause")
      began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      result = ask("gc_stat", "--expires", "6s")
      took = Process.clock_gettime(Process::CLOCK_MONOTONIC) - began
      assert_equal 1, result.status, result
      assert_match(/the request waits: the store is paused/, result.err)
      assert_match(/no capture: no process took it before it expired: the store is paused/, result.err)
      assert_operator took, :<, 40, "not two minutes later"
    end

    def test_a_node_that_is_gone_is_named_at_the_expiry
      @script = start_script
      watch
      Process.kill(:KILL, @pids.first) && Process.wait(@pids.shift)
      result = ask("gc_stat", "--expires", "2s")
      assert_equal 1, result.status, result
      assert_match(/the request has expired: 0 of 1 node answered; nothing was heard of .*: does `diagctl ship --watch` run there\?/, result.err)
    end

    private

    def allow(rules) = configure(remote: remote_section.sub(ALLOW, rules))

    # A request that nobody waits for. Returns its id.
    def file_request(*argv)
      diagctl!("request", *argv, "--remote", "--reason", "a test", env: elsewhere).out.chomp
    end

    def table = diagctl!("request", "--list", "--remote", env: elsewhere.merge("COLUMNS" => "200")).out

    def requests = diagctl!("request", "--list", "--remote", "--json", env: elsewhere).json["requests"]

    # Returns the request as soon as all nodes have answered it: at last, or at all.
    def wait_for(id, final: true)
      wait_until("an answer to #{id}") do
        request = requests.find { |found| found["id"] == id }
        states = request["answers"].values.map { |answer| final ? answer["state"] != "waiting" : answer["reason"] }
        request if states.any? && states.all?
      end
    end
  end

  class RequestChangesThroughS3Test < S3Case
    include Reading
    include RequestChanges

    def setup
      super
      configure(remote: remote_section)
    end

    def write_remote(key, content) = remote_write("fleet/#{key}", content)

    def remote_section = "url = \"#{remote_url}\"\nendpoint = \"#{@server.endpoint}\"\n#{Asking::ALLOW}"
  end

  class RequestChangesThroughDirectoryTest < DirectoryCase
    include Reading
    include RequestChanges

    def write_remote(key, content)
      path = File.join(@files, key)
      FileUtils.mkdir_p(File.dirname(path))
      File.write(path, content)
    end

    def remote_section = "#{super}\n#{Asking::ALLOW}"
  end
end
