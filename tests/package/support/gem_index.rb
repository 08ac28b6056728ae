# frozen_string_literal: true

require_relative "../../e2e/support/e2e"

module E2E
  # Our gems and an index of them, as rubygems.org has one. `empty/` is an index of none.
  module GemIndex
    module_function

    # @return [String] the directory; the gems are in `gems`
    def dir
      @dir ||= Dir.mktmpdir("diagctl-gems-").tap do |dir|
        FileUtils.mkdir_p(File.join(dir, "empty/gems"))
        gems = [File.join(ROOT, "packaging/gems"), File.join(dir, "gems"), "#{RbConfig::CONFIG["host_cpu"]}-linux=#{BIN}"]
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
