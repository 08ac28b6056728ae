# frozen_string_literal: true

require_relative "support/e2e"

# The master of a cluster without preloading holds nothing of diagctl's: a gem that it has activated is the only version
# that its workers can have, now and after a phased restart.
class PumaMasterTest < E2E::Case
  EVERY_SECOND = 'timer = { every = "1s", initial_delay = "0s" }'
  OTHER_JSON = "99.0"

  def test_the_master_maps_the_same_libraries_with_and_without_the_plugin
    configure(rule("often", EVERY_SECOND, %w[gc_stat object_counts]))
    without = master_libraries(plugin: false)
    assert_equal without, master_libraries(env: env(DIAGCTL_ENABLED: "0"))
    with = master_libraries do |server|
      captured = wait_for_captures(server).first
      assert_includes server.workers, captured["pid"]
    end
    assert_equal without, with
  end

  def test_a_worker_whose_bundle_wants_another_json_boots_is_captured_and_can_change_it_in_a_phased_restart
    configure(rule("often", EVERY_SECOND, %w[gc_stat heap_dump]))
    bundle_json(OTHER_JSON)
    server = bundled_puma
    assert_equal OTHER_JSON, json_version
    assert_heap_dump(wait_for_captures(server).first["id"])

    bundle_json("99.1")
    before = server.workers
    E2E::Processes.signal(:USR1, server.pid)
    wait_until("the workers are replaced", deadline: 120, tell: server.method(:log)) { server.workers.size == 2 && (server.workers & before).empty? }
    wait_until("the other json", tell: server.method(:log)) { json_version == "99.1" }
    wait_until("a capture of a new worker", tell: server.method(:log)) { captures.any? { |capture| server.workers.include?(capture["pid"]) } }
    server.stop
  end

  private

  def master_libraries(**options)
    server = puma(workers: 2, preload: false, **options)
    yield server if block_given?
    File.readlines("/proc/#{server.pid}/maps").filter_map { |line| line[%r{/\S+\.so\S*}] }.uniq.sort
  ensure
    server&.stop
  end

  # A gem of Ruby's own files under another number: RubyGems is not asked for one.
  def bundle_json(version)
    directory = File.join(@root, "json-#{version}")
    source = Gem.find_files("json.rb").first
    FileUtils.mkdir_p(File.join(directory, "lib"))
    FileUtils.cp(source, File.join(directory, "lib"))
    FileUtils.cp_r(source.delete_suffix(".rb"), File.join(directory, "lib"))
    extensions = File.join(RbConfig::CONFIG["rubyarchdir"], "json")
    FileUtils.cp_r("#{extensions}/.", File.join(directory, "lib/json")) if Dir.exist?(extensions)
    File.write(File.join(directory, "json.gemspec"), <<~RUBY)
      Gem::Specification.new("json", #{version.inspect}) { |spec| spec.summary = "json"; spec.authors = ["x"]; spec.files = ["lib/json.rb"] }
    RUBY
    File.write(File.join(@root, "Gemfile"), "gem \"puma\"\ngem \"rack\"\ngem \"json\", #{version.inspect}, path: #{directory.inspect}\n")
    FileUtils.rm_f(File.join(@root, "Gemfile.lock"))
  end

  def bundled_puma
    puma(workers: 2, preload: false, initializer: <<~RUBY, env: env(BUNDLE_GEMFILE: File.join(@root, "Gemfile")))
      require "bundler/setup"
      require "json"
      Thread.new { loop { File.write(File.join(#{@root.inspect}, "json-version"), Gem.loaded_specs["json"].version.to_s); sleep 0.2 } }
    RUBY
  end

  def json_version
    path = File.join(@root, "json-version")
    File.read(path) if File.exist?(path)
  end
end
