# frozen_string_literal: true

require "bundler"
require "fileutils"
require "rbconfig"

module E2E
  # Bundles, and the gems that they name in a GEM_HOME of their own; rubygems.org is not used. The gem is Ruby's own json under
  # other version numbers. Because json is a default gem, a process has either one version or another activated.
  class Bundles
    attr_reader :home

    def initialize(root)
      @root = root
      @home = File.join(root, "gems")
    end

    # Copies Ruby's own files under another version number.
    def json(version)
      lib = File.join(@home, "gems/json-#{version}/lib")
      FileUtils.mkdir_p(lib)
      RbConfig::CONFIG.values_at("rubylibdir", "rubyarchdir").each do |dir|
        FileUtils.cp_r(Dir[File.join(dir, "json{,.rb}")], lib)
      end
      File.write(File.join(lib, "json/version.rb"), "module JSON; VERSION = #{version.inspect}; end\n")
      specify(Gem::Specification.new("json", version))
    end

    # Returns the `puma` program to start with `prune_bundler`. Debian leaves out the program that Puma then executes, so the
    # package is copied and completed.
    def puma
      installed = Gem::Specification.find_by_name("puma")
      return installed.bin_file("puma") if File.exist?(File.join(installed.gem_dir, "bin/puma-wild"))

      # Bundler picks the highest version.
      version = "#{installed.version}.1"
      dir = File.join(@home, "gems/puma-#{version}")
      FileUtils.mkdir_p([File.join(dir, "lib"), File.join(dir, "bin")])
      installed.full_require_paths.each { |path| FileUtils.cp_r(File.join(path, "."), File.join(dir, "lib")) }
      FileUtils.cp(installed.bin_file("puma"), File.join(dir, "bin/puma"))
      File.write(File.join(dir, "bin/puma-wild"), <<~RUBY)
        _flag, paths, *arguments = ARGV
        $LOAD_PATH.concat(paths.split(":"))
        module Puma
        end
        Puma::WILD_ARGS = ["-I", paths]
        require "puma/cli"
        Puma::CLI.new(arguments).run
      RUBY
      copy = Gem::Specification.new("puma", version) { |spec| spec.executables = ["puma"] }
      installed.runtime_dependencies.each { |needed| copy.add_dependency(needed.name, needed.requirement) }
      specify(copy)
      File.join(dir, "bin/puma")
    end

    # @return [String] path of a Gemfile with these gems beside diagctl, Puma and Rack
    def gemfile(path, **versions)
      FileUtils.mkdir_p(File.dirname(path))
      ours = { "diagctl" => "diagctl", "puma-plugin-diagctl" => "puma-plugin" }
      lines = ours.map { |name, dir| "gem #{name.inspect}, path: #{File.join(ROOT, "ruby", dir).inspect}" }
      lines += versions.map { |name, version| "gem #{name.to_s.inspect}, #{version.inspect}" }
      File.write(path, <<~RUBY)
        source "https://rubygems.org"
        gem "puma"
        gem "rack"
        #{lines.join("\n")}
      RUBY
      path
    end

    private

    def specify(spec)
      spec.summary = spec.name
      spec.authors = ["nobody"]
      spec.require_paths = ["lib"]
      path = File.join(@home, "specifications", "#{spec.full_name}.gemspec")
      FileUtils.mkdir_p(File.dirname(path))
      File.write(path, spec.to_ruby)
    end
  end
end
