# frozen_string_literal: true

require "fileutils"
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

  private

  def run!(*argv, **options)
    out, err, status = Open3.capture3(*argv, **options)
    assert status.success?, "#{argv.join(" ")}\n#{out}#{err}"
    out
  end
end
