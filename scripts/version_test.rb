# frozen_string_literal: true

require "fileutils"
require "json"
require "minitest/autorun"
require "open3"
require "tmpdir"

class VersionTest < Minitest::Test
  ROOT = File.expand_path("..", __dir__)

  def test_one_version_is_everywhere_and_is_set_everywhere
    current = run!("scripts/version", chdir: ROOT).strip
    Dir.mktmpdir do |dir|
      files = Dir.glob(%w[Cargo.* crates/**/*.{toml,rs} fuzz/Cargo.* fuzz/fuzz_targets/*.rs ruby/*/lib/**/version.rb scripts/version], base: ROOT)
      files.each do |file|
        FileUtils.mkdir_p(File.dirname(File.join(dir, file)))
        FileUtils.cp(File.join(ROOT, file), File.join(dir, file))
      end
      assert_equal "99.8.7\n", run!("scripts/version", "99.8.7", chdir: dir)
      assert_equal "99.8.7\n", run!("scripts/version", chdir: dir)
      refute_match(/"#{Regexp.escape(current)}"/, File.read(File.join(dir, "ruby/diagctl/lib/diagctl/version.rb")))
      %w[Cargo.toml fuzz/Cargo.toml].each do |manifest|
        metadata = run!("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version", "1", "--manifest-path", manifest, chdir: dir)
        assert_includes metadata, "99.8.7" if manifest == "Cargo.toml"
      end
      file = File.join(dir, "ruby/diagctl/lib/diagctl/version.rb")
      File.write(file, File.read(file).sub("99.8.7", "1.0.0"))
      _, err, status = Open3.capture3("scripts/version", chdir: dir)
      assert_equal [false, true], [status.success?, err.include?("diagctl/version.rb has 1.0.0, not 99.8.7")]
    end
  end

  # No older compiler can be had here, so this is what can be known: every crate says that it compiles with the version that we name.
  def test_no_crate_needs_a_newer_rust_than_we_say
    packages = JSON.parse(run!("cargo", "metadata", "--locked", "--offline", "--format-version", "1", chdir: ROOT))["packages"]
    ours = File.read(File.join(ROOT, "Cargo.toml"))[/^rust-version = "(.*)"/, 1]
    newer = packages.select { |package| Gem::Version.new(package["rust_version"] || "0") > Gem::Version.new(ours) }
    assert_empty newer.map { |package| package.values_at("name", "rust_version") }
    pages = %w[README.md CONTRIBUTING.md docs/compatibility.md].to_h { |page| [page, File.read(File.join(ROOT, page))[/Rust[^.\d]*(\d+\.\d+)/, 1]] }
    assert_equal [ours], pages.values.uniq, pages
  end

  private

  def run!(*argv, **options)
    out, err, status = Open3.capture3(*argv, **options)
    assert status.success?, "#{argv.join(" ")}\n#{out}#{err}"
    out
  end
end
