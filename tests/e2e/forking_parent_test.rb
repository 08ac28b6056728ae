# frozen_string_literal: true

require_relative "support/e2e"

# A parent that forks its workers (Resque, Solid Queue, a Sidekiq swarm) stays as it is without diagctl: it loads no library,
# activates no gem and starts no thread, so that a worker's bundle may name other versions. The parent forks as those libraries
# do; none of them has a Debian package, and the swarm is part of Sidekiq Enterprise.
class ForkingParentTest < E2E::Case
  TELL = <<~RUBY
    libraries = File.read("/proc/self/maps").scan(%r{/\\S+\\.so\\S*}).uniq.sort
    features = $LOADED_FEATURES.reject { |feature| feature.start_with?(#{File.join(E2E::ROOT, "ruby/").inspect}) }.sort
    File.binwrite("told", Marshal.dump([libraries, features, Gem.loaded_specs.keys.sort, Thread.list.size]))
  RUBY
  PARENTS = {
    "plain" => ["", "require \"diagctl\"\nDiagctl.configure { |c| c.first_poll_within = 0.1 }", "Diagctl.start(role: \"resque\", name: \"child\")"],
    "swarm" => [<<~RUBY, "require \"diagctl/sidekiq\"\nDiagctl::Sidekiq.install(CONFIG)", "EVENTS.fetch(:startup).each(&:call)"]
      require "sidekiq/cli"
      CONFIG = Sidekiq.respond_to?(:default_configuration) ? Sidekiq.default_configuration : Sidekiq
      EVENTS = (CONFIG.respond_to?(:[]) ? CONFIG : CONFIG.options)[:lifecycle_events]
    RUBY
  }.freeze

  PARENTS.each_key do |kind|
    define_method("test_the_parent_loads_activates_and_starts_nothing_#{kind}") do
      [{ DIAGCTL_ENABLED: "1" }, { DIAGCTL_ENABLED: "0" }].each do |switch|
        first, ours, = PARENTS.fetch(kind)
        without, with = ["", ours].map { |diagctl| told("#{first}\n#{diagctl}", **switch) }
        without.zip(with, %w[libraries features gems threads]).each { |theirs, mine, what| assert_equal theirs, mine, "#{what}, #{switch}" }
      end
    end

    define_method("test_a_child_of_such_a_parent_is_captured_#{kind}") do
      first, ours, start = PARENTS.fetch(kind)
      pid = run_script("#{first}\n#{ours}\npid = fork { #{start}; sleep }\nFile.write(\"child\", pid)\nProcess.wait(pid)")
      child = wait_until("the child") { File.exist?(File.join(@root, "child")) && Integer(File.read(File.join(@root, "child")), exception: false) }
      diagctl!("request", "heap_dump", "--pid", child.to_s, "--reason", "a test", "--wait")
      assert_equal child, captures.first.fetch("pid")
      assert_heap_dump(captures.first.fetch("id"))
    ensure
      E2E::Processes.signal(:KILL, *[child, pid].compact)
    end
  end

  def test_a_child_whose_bundle_names_another_json_is_captured
    bundles = E2E::Bundles.new(@root)
    bundles.json("0.9.1")
    gemfile = bundles.gemfile(File.join(@root, "Gemfile"), json: "0.9.1")
    _, ours, start = PARENTS.fetch("plain")
    pid = run_script(<<~RUBY, GEM_HOME: bundles.home, BUNDLE_GEMFILE: gemfile)
      #{ours}
      pid = fork do
        require "bundler/setup"
        require "json"
        #{start}
        sleep
      end
      Process.wait(pid)
    RUBY
    diagctl!("request", "ruby", "heap_dump", "--role", "resque", "--reason", "a test", "--wait")
    child = captures.first.fetch("pid")
    assert_equal "0.9.1", JSON.parse(report("latest", "ruby")).fetch("gems").fetch("json")
    assert_heap_dump(captures.first.fetch("id"))
  ensure
    E2E::Processes.signal(:KILL, *[child, pid].compact)
  end

  private

  def told(program, **more)
    Process.wait(run_script("#{program}\n#{TELL}", **more))
    assert_predicate $?, :success?, File.read(File.join(@root, "script.log"))
    Marshal.load(File.binread(File.join(@root, "told")))
  end

  def run_script(program, **more)
    path = File.join(@root, "script.rb")
    File.write(path, program)
    load_path = [E2E::PumaServer::LOAD_PATH, E2E::SidekiqServer::LOAD_PATH].join(":")
    Process.spawn(env(RUBYLIB: load_path, **more), RbConfig.ruby, path, chdir: @root, %i[out err] => File.join(@root, "script.log"), unsetenv_others: true)
  end
end
