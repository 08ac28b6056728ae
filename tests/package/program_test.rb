# frozen_string_literal: true

require_relative "support/gem_index"
require_relative "support/image"

# The program where it was not built: without a library, and on ARM.
class ProgramTest < E2E::Case
  ARM64 = File.join(E2E::ROOT, "target/aarch64-unknown-linux-gnu/release/diagctl")

  # So neither libc nor its version matters.
  def test_it_runs_where_there_is_no_library
    skip "chroot needs root" unless Process.uid.zero?
    FileUtils.cp(E2E::BIN, File.join(@root, "diagctl"))
    Dir.mkdir(File.join(@root, "empty"))
    %w[--version help].each do |command|
      result = E2E::Command.run("chroot", @root, "/diagctl", command, env: { "PATH" => "/usr/sbin:/usr/bin" })
      assert result.ok? && result.out.include?("diagctl"), result
    end
  end

  def test_the_arm_program_captures_lists_and_verifies
    skip "there is no #{ARM64}; run packaging/arm64" unless File.exist?(ARM64)
    skip "qemu-user is not installed" unless system("qemu-aarch64", "--version", out: File::NULL)
    assert_equal 183, File.binread(ARM64, 2, 18).unpack1("S<"), "the machine of its ELF header"
    Dir.mkdir(@store, 0o700)
    id = arm64!("run", "--report", "hello", "--", "echo", "hi").out.strip
    assert_equal id, arm64!("list", "-q").out.strip
    assert_equal "hi\n", arm64!("fetch", "#{id}:hello", "-o", "-").out
    assert_match(/intact/, arm64!("verify", "--all").out)
    # It reads the capture of the other architecture, and the other way round.
    assert_equal id, diagctl!("list", "-q").out.strip
  end

  # A process that captures itself: the poll, the fork, the heap walker with its own system calls, and the reports.
  RUBY = <<~RUBY
    require "diagctl"
    class Session; def initialize(user) = @user = user; end
    KEPT = Array.new(2000) { |i| Session.new("user-\#{i}") }
    Diagctl.start(role: "script", name: "arm") || abort("not started")
    result = nil
    60.times { break if (result = Diagctl.capture(event: :go)).granted? || result.verdict != "busy"; sleep 1 }
    abort result.inspect unless result.granted?
    120.times { break if Dir["/store/reports/*"].any?; sleep 1 }
  RUBY
  CONFIGURATION = <<~TOML
    dir = "/store"
    guards = { min_free_disk = "1%", memory_headroom = 0.1 }
    retention = { keep_free = "1%" }
    [[rules]]
    name = "go"
    reports = ["gc_stat", "smaps", "malloc_info", "object_counts", "heap_dump"]
    trigger.event = { name = "go" }
  TOML

  def test_the_arm_program_ships
    skip "there is no #{ARM64}-remote; run packaging/arm64" unless File.exist?("#{ARM64}-remote")
    # The script stands for binfmt_misc, which lets one ARM program start another. The copy has no ARM program beside it.
    %w[arm bucket].each { |name| Dir.mkdir(File.join(@root, name)) }
    File.write(File.join(@root, "arm/diagctl-remote"), "#!/bin/sh\nexec qemu-aarch64 #{ARM64}-remote \"$@\"\n", perm: 0o755)
    FileUtils.cp(ARM64, program = File.join(@root, "diagctl"))
    configure(remote: "url = \"file://#{@root}/bucket\"")
    id = diagctl!("run", "--report", "hello", "--", "echo", "hi").out.strip
    told = E2E::Command.run("qemu-aarch64", program, "ship", env: env(PATH: "#{@root}/arm:/usr/bin:/bin"))
    assert told.ok?, told
    assert_equal id, File.basename(File.dirname(Dir[File.join(@root, "bucket/captures/**/meta.json")].first))
  end

  def test_a_ruby_on_arm_is_captured_and_the_walker_walks_its_heap
    skip "there is no #{ARM64}; run packaging/arm64" unless File.exist?(ARM64)
    image = E2E::Image.named("arm64") or skip "no image: #{E2E::Image.why}"
    reports = captured(image, <<~SH, ro: { "/gems" => File.join(E2E::ROOT, "ruby"), "/diagctl-arm" => ARM64 })
      printf '#!/bin/sh\nexec qemu-aarch64 /diagctl-arm "$@"\n' > /usr/local/bin/diagctl
      chmod 755 /usr/local/bin/diagctl
      qemu-aarch64 /usr/bin/ruby -I/gems/diagctl/lib /script.rb
    SH
    assert_empty reports.filter_map { |report| report["error"] }
  end

  # The gem of x86_64-linux, as RubyGems installs it on musl.
  def test_a_ruby_on_musl_installs_the_gem_and_is_captured
    image = E2E::Image.named("musl") or skip "no image: #{E2E::Image.why}"
    reports = captured(image, <<~SH, ro: { "/srv/gems" => E2E::GemIndex.dir })
      export PATH=/opt/musl/bin:$PATH GEM_HOME=/tmp/gems
      ruby -e 'exit Gem::Platform.local.version == "musl"'
      gem install --local --no-document /srv/gems/gems/diagctl-*-linux.gem
      ruby -rdiagctl /script.rb
      ln -s /tmp/gems/bin/diagctl /usr/local/bin/diagctl
    SH
    assert_equal ["this C library has no malloc_info; only glibc has it"], reports.filter_map { |report| report["error"] }
  end

  private

  # Runs the script that captures itself, and returns the reports. The walker must have made the heap dump.
  def captured(image, script, ro:)
    told = image.run(<<~SH, ro: ro, env: { RUBY: RUBY, CONFIGURATION: CONFIGURATION })
      printenv RUBY > /script.rb
      printenv CONFIGURATION > /diagctl.toml
      mkdir -m 700 /store
      export DIAGCTL_ENABLED=1 DIAGCTL_CONFIG=/diagctl.toml
      #{script}
      diagctl verify --all
      cat /store/reports/*/meta.json
      diagctl heap path latest Session -n 3
    SH
    assert told.ok?, told
    assert_match(/2000 .* KEPT → Array\[\] → Session$/, told.out)
    reports = JSON.parse(told.out[/^\{.*^\}/m]).fetch("reports")
    assert_equal "walker", reports.find { |report| report["name"] == "heap_dump" }["producer"]
    reports
  end

  def arm64(*argv) = E2E::Command.run("qemu-aarch64", ARM64, *argv, env: env)

  def arm64!(*argv) = arm64(*argv).tap { |result| assert result.ok?, result }
end
