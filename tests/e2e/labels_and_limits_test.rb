# frozen_string_literal: true

require_relative "support/e2e"

# Labels of captures, rules for some processes, and limits of one process.
class LabelsAndLimitsTest < E2E::Case
  def test_labels_of_the_application_and_of_the_operator
    initializer = 'Diagctl.configure { |c| c.label(:git_sha, "2f1c9e7"); c.label(:app_version) { "4.2" }; c.label(:region, "from the application") }'
    puma(initializer: initializer, env: env(DIAGCTL_LABELS: "region=eu,canary=yes"))
    [["gc_stat"], ["heap_dump"]].each do |reports|
      id = diagctl!("request", *reports, "--reason", "labels", "--wait").out.strip
      assert_equal({ "app_version" => "4.2", "canary" => "yes", "git_sha" => "2f1c9e7", "region" => "eu" }, meta(id).fetch("labels"))
      assert_match(/^labels .*git_sha 2f1c9e7/, diagctl!("show", id).out)
    end
  end

  # Records stay readable where reports are encrypted, and travel.
  def test_secrets_in_labels_and_names_are_hidden
    initializer = 'Diagctl.configure { |c| c.label(:db, "https://u:S3KRET@h/x"); c.label(:key, "AGE-SECRET-KEY-1S3KRET") }'
    puma(initializer: initializer, env: env(DIAGCTL_LABELS: "hook=https://h/x?token=S3KRET"))
    [["gc_stat"], ["heap_dump"]].each do |reports|
      id = diagctl!("request", *reports, "--reason", "labels", "--wait").out.strip
      assert_equal({ "db" => "https://(hidden)@h/x", "hook" => "https://h/x?token=(hidden)", "key" => "(a secret key)" }, meta(id).fetch("labels"))
    end
    diagctl("acquire", "--pid", Process.pid.to_s, "--name", "https://u:S3KRET@h", "--lease-fd", "9", "--off")
    kept = Dir.glob("#{@store}/**/*").select { |path| File.file?(path) }.select { |path| File.binread(path).include?("S3KRET") }
    assert_empty kept
  end

  # One process would otherwise take every turn: the rule captures whichever polls first.
  def test_no_process_takes_every_turn
    configure(rule("turns", 'memory_usage = { above = "1MiB" }', ["gc_stat"], 'match = { role = ["nobody", "pu*"], name = ["worker-1", "*-2"] }',
                   'limits = { per_process = "1h" }'))
    server = puma(workers: 3)
    workers = wait_for_captures(server, 2).map { |capture| capture.fetch("worker") }
    assert_equal %w[worker-1 worker-2], workers.sort
    explained = lambda do |worker|
      wait_until("the answer to #{worker}") { diagctl!("status", "--explain").out[/^puma #{worker} .*(per_process|no rule).*/] }
    end
    workers.each { |worker| assert_includes explained.call(worker), "per_process 1h: the last capture of this process was" }
    assert_includes explained.call("worker-0"), "no rule is about this process"
    assert_equal 2, captures.size
  end

  # A shell that lacks the workers' DIAGCTL_CONFIG would silently show other rules than theirs.
  def test_status_in_a_shell_shows_the_rules_of_the_workers_or_says_that_it_does_not
    configure(rule("theirs", 'timer = { every = "1h" }', ["gc_stat"]))
    puma
    diagctl!("request", "gc_stat", "--reason", "a poll", "--wait")
    told = diagctl!("status", env: env(DIAGCTL_CONFIG: nil)).out
    assert_match(/^config +this environment names no file; shown is #{config_path}/, told)
    assert_match(/^theirs +timer/, told)
    assert_match(/names no configuration; #{config_path} counts/, diagctl!("gc", "--dry-run", env: env(DIAGCTL_CONFIG: nil)).err)
    other = File.join(@root, "other.toml")
    File.write(other, "poll_interval = \"7s\"\n")
    told = diagctl!("--config", other, "status").out
    assert_match(/^config +shown is #{other}, but the processes last used #{config_path}/, told)
    refute_match(/^config/, diagctl!("status").out)
  end
end
