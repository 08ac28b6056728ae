# frozen_string_literal: true

require_relative "support/e2e"

# `diagctl init` beside a real Puma, and its file in force in that Puma.
class InitTest < E2E::Case
  def test_the_file_fits_the_puma_that_runs_and_captures_on_request
    server = puma(workers: 2)
    file = File.join(@root, "new.toml")
    written = diagctl!("init", "-o", file)
    # Other tests may run beside this one.
    assert_match(/^  puma: \d+ processes, the largest of .*(no memory limit|a memory limit of .*)$/, written.out)
    assert_match(/^  allocator: /, written.out)
    assert_includes written.out, "plugin :diagctl"
    assert_includes written.out, "DIAGCTL_CONFIG=#{file}"
    assert_equal @store, File.read(file)[/^dir = "(.*)"/, 1]
    checked = diagctl("config", "check", file)
    assert checked.ok?, checked
    server.stop
    # This machine may have less free disk and memory than a production machine should.
    relaxed = File.read(file).sub(/^min_free_disk = "15%"/, 'min_free_disk = "1%"').sub(/^keep_free = "15%"/, 'keep_free = "1%"')
    File.write(file, relaxed.sub(/^memory_headroom = 1.0/, "memory_headroom = 0.1"))
    puma(workers: 2, env: env(DIAGCTL_CONFIG: file))
    id = diagctl!("request", "--reason", "first try", "--wait", env: env(DIAGCTL_CONFIG: file)).out.strip
    reports = meta(id).fetch("reports")
    assert_equal "asked-for", meta(id).fetch("rule")
    assert_equal ["heap_dump"], reports.map { |report| report["name"] } & ["heap_dump"]
    assert_empty reports.filter_map { |report| report["error"] unless report["name"] == "jemalloc_stats" }
  end

  # An empty file is a valid configuration, and would be taken for what `init` wrote.
  def test_a_write_that_fails_leaves_no_file_and_keeps_the_old_one
    old = File.join(@root, "old.toml").tap { |path| File.write(path, "# only comments\n") }
    new = File.join(@root, "new.toml")
    before = Dir.children(@root)
    [old, new].each do |file|
      result = E2E::Command.run("prlimit", "--fsize=100", E2E::BIN, "init", "-o", file, env: env)
      assert_equal 1, result.status, result
      assert_match(/cannot write .*File too large/, result.err)
    end
    assert_equal "# only comments\n", File.read(old)
    assert_equal before.sort, Dir.children(@root).sort
  end

  def test_completions_are_scripts_that_their_shells_accept
    %w[bash zsh fish].each do |shell|
      script = diagctl!("completions", shell).out
      assert script.include?("reason"), shell
      next unless system("command", "-v", shell, out: File::NULL)

      file = File.join(@root, shell).tap { |path| File.write(path, script) }
      checked = E2E::Command.run(shell, "-n", file, env: env)
      assert checked.ok? && checked.err.empty?, checked
    end
  end
end
