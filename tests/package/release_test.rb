# frozen_string_literal: true

require "json"
require "rubygems/package"
require_relative "../e2e/support/e2e"

# A release of this machine's CPU, made here and again in another directory, from nothing.
class ReleaseTest < Minitest::Test
  def test_two_releases_are_byte_equal_and_complete
    epoch = Command.run("git", "log", "-1", "--format=%ct", env: env, chdir: E2E::ROOT).out.strip
    epoch = "1764547200" if epoch.empty?
    target = ENV.fetch("CARGO_TARGET_DIR", File.join(E2E::ROOT, "target"))
    first = release(E2E::ROOT, target, epoch)
    Dir.mktmpdir("diagctl-release-") do |dir|
      FileUtils.cp_r(Dir.glob("*", base: E2E::ROOT).grep_v("target").map { |name| File.join(E2E::ROOT, name) }, dir)
      second = release(dir, File.join(dir, "target"), epoch, tools: File.join(target, "tools/bin"))
      assert_equal Dir.children(first).sort, Dir.children(second).sort
      differing = Dir.children(first).reject { |name| FileUtils.identical?(File.join(first, name), File.join(second, name)) }
      assert_empty differing
    end
    assert_complete(first)
  end

  private

  Command = E2E::Command

  def env(**more) = ENV.to_h.slice("PATH", "HOME", "CARGO_HOME").merge("CARGO_PROFILE_DEV_DEBUG" => "0").merge(more.transform_keys(&:to_s))

  # Not the ARM program: the same script builds it, in the same way.
  def release(dir, target, epoch, tools: File.join(target, "tools/bin"))
    built = Command.run("make", "release", "ARM=no", chdir: dir, deadline: 1800,
      env: env(CARGO_TARGET_DIR: target, SOURCE_DATE_EPOCH: epoch, PATH: "#{ENV.fetch("PATH")}:#{tools}"))
    assert built.ok?, built
    File.join(target, "dist")
  end

  # The names of the crates that the SBOM says a program consists of.
  def in_program(sbom, name)
    needed = sbom["dependencies"].to_h { |it| it.values_at("ref", "dependsOn") }
    found = sbom["components"].filter_map { |it| it["bom-ref"] if it["name"] == name }
    found.each { |ref| found.concat(needed.fetch(ref) - found) }
    found.map { |ref| ref[%r{\Apkg:cargo/(.*)@}, 1] }
  end

  def assert_complete(dist)
    names = Dir.children(dist)
    archive = names.grep(/\Adiagctl-.*-linux\.tar\.gz\z/).first
    listed = Command.run("tar", "-tzf", File.join(dist, archive), env: env).out
    %w[diagctl diagctl-remote LICENSE THIRD-PARTY-LICENSES man/diagctl.1 completions/diagctl.bash diagctl.toml].each { |name| assert_match(%r{/#{name}$}, listed) }
    assert_equal 4, names.grep(/\.gem\z/).size
    gem = Gem::Package.new(File.join(dist, names.grep(/linux\.gem\z/).first)).spec
    assert_equal %w[diagctl diagctl-remote], gem.files.grep(%r{\Aexe/.*/}).map { |file| File.basename(file) }
    assert_equal 1, names.grep(/\.deb\z/).size
    assert_equal names.size - 1, File.readlines(File.join(dist, "SHA256SUMS")).size
    sbom = JSON.parse(File.read(File.join(dist, names.grep(/\.cdx\.json\z/).first)))
    assert_equal ["CycloneDX", "1.5", "diagctl"], [sbom["bomFormat"], sbom["specVersion"], sbom.dig("metadata", "component", "name")]
    crates = sbom["components"].to_h { |component| [component["name"], component] }
    assert_match(/\A\h{64}\z/, crates.fetch("serde_json")["hashes"].first["content"])
    assert_equal [[], %w[tokio rustls]],
      %w[diagctl diagctl-remote].map { |program| %w[tokio rustls openssl-sys insta tempfile clap_mangen syn] & in_program(sbom, program) }
  end
end
