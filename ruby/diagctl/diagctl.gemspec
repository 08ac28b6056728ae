# frozen_string_literal: true

require_relative "lib/diagctl/version"

Gem::Specification.new do |spec|
  spec.name = "diagctl"
  spec.version = Diagctl::VERSION
  spec.summary = "Diagnostic reports from production Ruby processes, made by the processes themselves"
  spec.description = "Polls the diagctl program from a thread of the process. When the operator's rules allow it, makes a heap dump (in a " \
    "forked child), allocator statistics, backtraces and other reports."
  spec.authors = ["The diagctl authors"]
  spec.license = "MIT"
  spec.homepage = "https://rubygems.org/gems/diagctl"
  # For Process._fork, which the fork guard needs.
  spec.required_ruby_version = ">= 3.1"
  # Comes with every Ruby. Named here because from Ruby 4.0 on Bundler hides it from a bundle that does not name it, and under 3.4
  # Bundler warns.
  spec.add_dependency "fiddle"
  # packaging/gems adds the program, and exe/diagctl, to the gems of platforms.
  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.{rb,rake,tt,toml}", "README.md"] }
  spec.require_paths = ["lib"]
  spec.metadata = { "rubygems_mfa_required" => "true" }
end
