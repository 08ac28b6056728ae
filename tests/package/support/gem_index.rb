# frozen_string_literal: true

require_relative "../../e2e/support/e2e"

module E2E
  # Our gems and an index of them, as rubygems.org has one. `empty/` is an index of none. DIAGCTL_TEST_GEMS names a directory that has
  # them already: an image of the matrix has no cargo, and its RubyGems may have no `generate_index`.
  module GemIndex
    module_function

    # `make test` builds no diagctl-remote, which takes minutes.
    def programs = [BIN, "#{BIN}-remote"].select { |program| File.exist?(program) }

    # @return [String] the directory; the gems are in `gems`
    def dir
      @dir ||= ENV["DIAGCTL_TEST_GEMS"] || Dir.mktmpdir("diagctl-gems-").tap do |dir|
        FileUtils.mkdir_p(File.join(dir, "empty/gems"))
        gems = [File.join(ROOT, "packaging/gems"), File.join(dir, "gems"), "#{RbConfig::CONFIG["host_cpu"]}-linux=#{programs.join(",")}"]
        [gems, *[dir, File.join(dir, "empty")].map { |indexed| ["gem", "generate_index", "--directory", indexed] }].each do |argv|
          result = Command.run(*argv, env: ENV.to_h.slice("PATH", "HOME"))
          raise result.to_s unless result.ok?
        end
        File.chmod(0o755, dir)
        Minitest.after_run { FileUtils.rm_rf(dir) }
      end
    end
  end
end

# Copies them for an image of the matrix: ruby tests/package/support/gem_index.rb DIRECTORY
if $PROGRAM_NAME == __FILE__
  FileUtils.mkdir_p(File.dirname(ARGV.fetch(0)))
  FileUtils.cp_r(E2E::GemIndex.dir, ARGV.fetch(0))
end
