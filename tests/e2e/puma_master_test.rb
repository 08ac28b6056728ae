# frozen_string_literal: true

require_relative "support/e2e"

# Without preloading, a Puma master must stay as Puma made it: workers cannot load another version of anything that the master
# has loaded, and a phased restart cannot change it.
class PumaMasterTest < E2E::Case
  # The master reports its own state. It does so without a thread, which would show in the result.
  TELLS = <<~RUBY
    trap(:WINCH) do
      File.write("told.tmp", Marshal.dump([$LOADED_FEATURES, Gem.loaded_specs.keys, Thread.list.size]))
      File.rename("told.tmp", "told")
    end
  RUBY
  LOADS_ITS_BUNDLE = %(require "bundler/setup"\nrequire "json")
  OURS = File.join(E2E::ROOT, "ruby/")

  def setup
    super
    @bundles = E2E::Bundles.new(@root)
    @gemfile = File.join(@root, "Gemfile")
  end

  def test_the_master_of_a_cluster_loads_activates_and_starts_nothing
    [{ DIAGCTL_ENABLED: "1" }, { DIAGCTL_ENABLED: "0" }].each do |switch|
      without, with = [false, true].map { |plugin| master(env(**switch), plugin: plugin) }
      without.zip(with, %w[libraries features gems threads]).each { |theirs, ours, what| assert_equal theirs, ours, "#{what}, #{switch}" }
    end
  end

  # The same holds for a master with a preloaded application: what the master itself does not need, the workers load.
  def test_the_master_of_a_preloading_cluster_loads_activates_and_starts_nothing
    without, with = [false, true].map { |plugin| master(env, plugin: plugin, preload: true) }
    assert_equal without, with
  end

  def test_a_worker_whose_bundle_names_another_json_boots_and_is_captured
    @bundles.json("0.9.1")
    @bundles.gemfile(@gemfile, json: "0.9.1")
    server = puma(workers: 2, preload: false, initializer: LOADS_ITS_BUNDLE, env: env(GEM_HOME: @bundles.home, BUNDLE_GEMFILE: @gemfile))
    assert_captured_with_json("0.9.1", server)
  end

  def test_a_phased_restart_under_prune_bundler_brings_another_json_in
    %w[0.9.1 0.9.2].each { |version| @bundles.json(version) }
    @bundles.gemfile(@gemfile, json: "0.9.1")
    server = pruned(%(extra_runtime_dependencies ["diagctl", "puma-plugin-diagctl"]))
    assert_includes server.log, "Pruning Bundler environment"
    assert_captured_with_json("0.9.1", server)
    first = server.workers
    @bundles.gemfile(@gemfile, json: "0.9.2")
    E2E::Processes.signal(:USR1, server.pid)
    wait_until("the workers are replaced", tell: server.method(:log)) { (first & server.workers).empty? && server.workers.size == 2 }
    assert_captured_with_json("0.9.2", server)
    _, features, gems = told(server)
    assert_empty features.grep(%r{/json/ext|fiddle|objspace|nonblock|ostruct})
    assert_empty gems & %w[json fiddle objspace io-nonblock ostruct]
  end

  # As described in ruby/puma-plugin/README.md.
  def test_under_prune_bundler_without_extra_runtime_dependencies_puma_does_not_find_the_plugin
    @bundles.json("0.9.1")
    @bundles.gemfile(@gemfile, json: "0.9.1")
    error = assert_raises(RuntimeError) { pruned("") }
    assert_includes error.message, "Unable to find plugin: diagctl"
  end

  private

  def pruned(dependencies)
    puma(workers: 2, preload: false, first: "prune_bundler\n#{dependencies}\n#{TELLS}", initializer: LOADS_ITS_BUNDLE,
      program: @bundles.puma, load_path: false,
      env: env(GEM_HOME: @bundles.home, BUNDLE_GEMFILE: @gemfile, RUBYOPT: "-rbundler/setup"))
  end

  # Returns the state of a master once its workers poll (if there is a plugin).
  def master(env, plugin:, preload: false)
    server = puma(workers: 2, preload: preload, first: TELLS, plugin: plugin, env: env)
    assert_captured(server) if plugin && env["DIAGCTL_ENABLED"] == "1"
    told(server)
  ensure
    server&.stop
  end

  # @return [Array(Array<String>, Array<String>, Array<String>, Integer)] mapped libraries, loaded features, gems, threads
  def told(server)
    path = File.join(@root, "told")
    FileUtils.rm_f(path)
    E2E::Processes.signal(:WINCH, server.pid)
    wait_until("the master tells") { File.exist?(path) }
    features, gems, threads = Marshal.load(File.binread(path))
    libraries = File.read("/proc/#{server.pid}/maps").scan(%r{/\S+\.so\S*}).uniq.sort
    [libraries, features.reject { |feature| feature.start_with?(OURS) }.sort, gems.sort, threads]
  end

  def assert_captured(server)
    before = captures.size
    diagctl!("request", "heap_dump", "ruby", "--reason", "a test")
    capture = wait_for_captures(server, before + 1).first
    assert_includes server.workers, capture.fetch("pid")
    assert_heap_dump(capture.fetch("id"))
    capture
  end

  def assert_captured_with_json(version, server)
    capture = assert_captured(server)
    assert_equal version, JSON.parse(report(capture.fetch("id"), "ruby")).fetch("gems").fetch("json")
  end
end
