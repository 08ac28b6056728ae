# frozen_string_literal: true

require "rubygems/package"
require_relative "../e2e/support/e2e"
require_relative "support/gem_index"

# The gems as people get them: built, installed into an empty GEM_HOME from an index as that of rubygems.org, and used from there.
class GemsTest < E2E::Case
  NOBODY = 65_534
  # Puma under Bundler, with nothing but the environment of a service.
  class BundledPuma < E2E::PumaServer
    def command = [RbConfig.ruby, Gem.bin_path("bundler", "bundle"), "exec", "puma"]
  end

  def setup
    super
    @gem_home = File.join(@root, "gem_home")
    @commands = commands_of_this_ruby
  end

  def test_two_builds_are_equal_and_each_gem_has_what_it_needs
    skip "cargo is not installed" unless system("cargo", "--version", out: File::NULL, err: File::NULL)
    again = File.join(@root, "again")
    sh!(File.join(E2E::ROOT, "packaging/gems"), again, "#{cpu}-linux=#{programs.join(",")}", "aarch64-linux=#{E2E::BIN}", env: ENV.to_h.slice("PATH", "HOME"))
    names = Dir.children(gems).sort
    assert_equal ["diagctl-#{version}-#{cpu}-linux.gem", "diagctl-#{version}.gem", "puma-plugin-diagctl-#{version}.gem",
                  "sidekiq-diagctl-#{version}.gem"], names
    names.each { |name| assert File.binread(File.join(gems, name)) == File.binread(File.join(again, name)), "#{name} differs" }
    specs = names.to_h { |name| [name, Gem::Package.new(File.join(gems, name)).spec] }
    with, without = specs.values_at(*names.first(2))
    assert_equal ["THIRD-PARTY-LICENSES", "exe/diagctl", *programs.map { |program| "exe/#{cpu}-linux/#{File.basename(program)}" }],
      with.files - without.files
    arm = Gem::Package.new(File.join(again, "diagctl-#{version}-aarch64-linux.gem")).spec
    assert_equal ["exe/aarch64-linux/diagctl"], arm.files.grep(%r{\Aexe/.*/})
    assert_equal [["diagctl"], []], [with.executables, without.executables]
    specs.each_value { |spec| assert_includes spec.files, "LICENSE" }
  end

  # RubyGems 3.3 and later take a gem of x86_64-linux on glibc and on musl.
  def test_a_gem_of_a_platform_is_taken_with_every_libc
    gem = Gem::Platform.new("#{cpu}-linux")
    ["#{cpu}-linux", "#{cpu}-linux-gnu", "#{cpu}-linux-musl"].each do |local|
      local = Gem::Platform.new(local)
      # RubyGems up to 3.3.22 and later ones ask from different sides.
      assert gem === local, local.to_s
      assert Gem::Platform.send(:match_platforms?, gem, [Gem::Platform::RUBY, local]), local.to_s
    end
    refute Gem::Platform.send(:match_platforms?, gem, [Gem::Platform::RUBY, Gem::Platform.new("riscv64-linux")])
  end

  def test_a_puma_under_bundler_captures_itself_as_an_ordinary_user_with_read_only_gems
    skip "it needs root, to become another user" unless Process.uid.zero?
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat smaps heap_dump], "limits = { max_count = 1, window = \"1h\" }"))
    server = bundled_puma
    id = wait_for_captures(server).first.fetch("id")
    assert_equal ["puma", [["smaps", nil], ["gc_stat", nil], ["heap_dump", nil], ["heap_summary", nil]]],
      [meta(id)["role"], meta(id)["reports"].map { |report| report.values_at("name", "error") }]
    assert_equal NOBODY, File.stat(File.join(@store, "reports", id)).uid
    # The command that the gem brings, with nothing of diagctl in PATH.
    listed = as_nobody("bundle", "exec", "diagctl", "list", "-q")
    assert_equal [0, id], [listed.status, listed.out.strip], listed
    server.stop
    assert_equal [], server.diagctl_lines.grep_v(/captured|polls|started|\[diagctl\] .*(rule|capture)/i), server.log
  end

  def test_uninstalled_gems_leave_nothing_that_polls_and_the_server_serves
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', %w[gc_stat]))
    server = bundled_puma(user: false)
    wait_for_captures(server)
    gem!("uninstall", "--all", "--executables", "--ignore-dependencies", "diagctl", "puma-plugin-diagctl")
    wait_until("the worker says that the program is gone", tell: server.method(:log)) { server.log.match?(/\[diagctl\].*(ENOENT|missing|No such file|cannot)/) }
    20.times { assert server.get("/"), server.log }
    assert_empty E2E::Processes.descendants.select { |process| process.argv.first.to_s.end_with?("diagctl") }
    File.write(File.join(@root, "config/puma.rb"), File.read(File.join(@root, "config/puma.rb")).sub("plugin :diagctl", ""))
    server.stop
    bundle(gemfile: "source \"https://rubygems.org\"\ngem \"puma\"\n")
    server.start
    assert server.get("/")
    assert_empty server.diagctl_lines
  end

  def test_the_gem_ships
    skip "diagctl-remote is not built; run make remote" unless programs.include?("#{E2E::BIN}-remote")
    configure(remote: "url = \"file://#{@root}/bucket\"")
    Dir.mkdir(File.join(@root, "bucket"))
    gem!("install", "--local", "--no-document", "diagctl-#{version}-#{cpu}-linux.gem", chdir: gems)
    id = sh!("diagctl", "run", "--report", "hello", "--", "echo", "hi", env: user_env).out.strip
    sh!("diagctl", "ship", env: user_env)
    listed = sh!("diagctl", "list", "--remote", "-q", env: user_env)
    assert_equal id, listed.out.strip, listed
  end

  def test_the_gem_without_the_program_says_so
    gem!("install", "--local", "--no-document", "diagctl-#{version}.gem", chdir: gems)
    told = sh(RbConfig.ruby, "-rdiagctl", "-e", "p Diagctl.start; p Gem.loaded_specs.fetch('diagctl').platform", env: user_env)
    assert_equal "false\n\"ruby\"\n", told.out, told
    assert_match(/gem is the one without the program, and the program is not in PATH.*bundle lock --add-platform #{cpu}-linux/, told.err)
  end

  def test_a_program_that_may_not_be_executed_is_named
    gem!("install", "--local", "--no-document", "diagctl-#{version}-#{cpu}-linux.gem", chdir: gems)
    program = File.join(@gem_home, "gems/diagctl-#{version}-#{cpu}-linux/exe/#{cpu}-linux/diagctl")
    File.chmod(0o644, program)
    [sh(RbConfig.ruby, "-rdiagctl", "-e", "exit Diagctl.start", env: user_env), sh(File.join(@gem_home, "bin/diagctl"), "list", env: user_env)].each do |told|
      assert_equal 1, told.status
      assert_match(/#{program}, is not executable.*gem pristine diagctl/m, told.err)
    end
  end

  def test_the_gemfile_of_the_documentation_installs_both_gems
    page = File.read(File.join(E2E::ROOT, "docs/getting-started.md"))
    gemfile = page[/```ruby\n# Gemfile\n(.*?)```/m, 1].sub("/srv/gems", E2E::GemIndex.dir)
    bundle(gemfile: gemfile)
    told = sh!("bundle", "exec", "diagctl", "--version", env: user_env, chdir: @root)
    assert_equal "diagctl #{version}\n", told.out
    assert_match(/^    diagctl \(#{version}-#{cpu}-linux\)$/, File.read(File.join(@root, "Gemfile.lock")))
  end

  def test_bundler_requires_each_gem_by_its_name_and_the_former_one_works
    bundle("sidekiq-diagctl", "puma-plugin-diagctl")
    told = sh!("bundle", "exec", RbConfig.ruby, "-e", "Bundler.require; p Diagctl::Sidekiq.respond_to?(:install), defined?(Puma::Plugin); " \
      "p require('sidekiq-middleware-diagctl')", env: user_env, chdir: @root)
    assert_equal "true\nnil\ntrue\n", told.out, told
  end

  # No gem needs anything but a gem that Ruby brings, and what it connects to.
  def test_nothing_else_is_needed
    needed = Dir[File.join(gems, "*.gem")].to_h { |file| Gem::Package.new(file).spec.then { |spec| [spec.full_name, spec.dependencies.map(&:name)] } }
    assert_equal [%w[fiddle], %w[fiddle], %w[diagctl puma], %w[diagctl sidekiq]], needed.sort.map { |name, names| names.sort }
  end

  private

  def programs = E2E::GemIndex.programs

  def gems = File.join(E2E::GemIndex.dir, "gems")

  def cpu = RbConfig::CONFIG["host_cpu"]

  def version = File.read(File.join(E2E::ROOT, "ruby/diagctl/lib/diagctl/version.rb"))[/"(.*)"/, 1]

  # A directory with ruby, gem and bundle. Debian calls those of a second Ruby ruby3.4 and so on. No shell stands between: it would drop
  # variables like BUNDLE_MIRROR__HTTPS://….
  def commands_of_this_ruby
    File.join(@root, "commands").tap do |dir|
      Dir.mkdir(dir)
      File.symlink(RbConfig.ruby, File.join(dir, "ruby"))
      { "gem" => "require \"rubygems/gem_runner\"; Gem::GemRunner.new.run(ARGV.dup)", "bundle" => "load #{Gem.bin_path("bundler", "bundle").inspect}" }
        .each { |name, script| File.write(File.join(dir, name), "#!#{RbConfig.ruby}\n#{script}\n", perm: 0o755) }
    end
  end

  # PATH without the program: that of the gem is found.
  def user_env(**more)
    env(DIAGCTL_BIN: nil, GEM_HOME: @gem_home, PATH: "#{@gem_home}/bin:#{@commands}:/usr/bin:/bin", BUNDLE_APP_CONFIG: File.join(@root, "bundle"),
      BUNDLE_FROZEN: "true", **more)
  end

  def sh(*argv, env: self.env, **options) = E2E::Command.run(*argv, env: env, **options)

  def sh!(*argv, **options) = sh(*argv, **options).tap { |result| assert result.ok?, result }

  def gem!(*argv, **options) = sh!("gem", *argv, env: user_env, **options)

  # Puma and Sidekiq are Debian's: rubygems.org cannot be reached, and an empty index stands for it.
  def bundle(*names, gemfile: "source \"https://rubygems.org\"\nsource \"file://#{E2E::GemIndex.dir}\" do\n#{names.map { |name| "gem \"#{name}\"\n" }.join}end\n")
    FileUtils.rm_f(File.join(@root, "Gemfile.lock"))
    File.write(File.join(@root, "Gemfile"), gemfile)
    mirror = { "BUNDLE_MIRROR__HTTPS://RUBYGEMS__ORG/" => "file://#{E2E::GemIndex.dir}/empty" }
    sh!("bundle", "install", env: user_env(BUNDLE_FROZEN: nil).merge(mirror), chdir: @root)
  end

  def bundled_puma(user: true)
    bundle("puma-plugin-diagctl")
    if user
      sh!("chmod", "-R", "a-w", @gem_home)
      FileUtils.mkdir_p(@store, mode: 0o700)
      FileUtils.chown_R(NOBODY, NOBODY, [@store, File.join(@root, "tmp"), File.join(@root, "home")])
    end
    BundledPuma.new(@root, env: user_env, workers: 2, load_path: false, wrapper: user ? setpriv : []).start
  end

  def setpriv = ["setpriv", "--reuid=#{NOBODY}", "--regid=#{NOBODY}", "--clear-groups"]

  def as_nobody(*argv) = sh(*setpriv, *argv, env: user_env, chdir: @root)
end
