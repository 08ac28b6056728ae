# frozen_string_literal: true

require_relative "lib/diagctl/puma/version"

Gem::Specification.new do |spec|
  spec.name = "puma-plugin-diagctl"
  spec.version = Diagctl::Puma::VERSION
  spec.summary = "Puma plugin for diagctl"
  spec.description = "`plugin :diagctl` in config/puma.rb: every worker can make its own diagnostic reports. Puma 5.6 to 8.0, " \
    "cluster and single mode."
  spec.authors = ["The diagctl authors"]
  spec.license = "MIT"
  spec.homepage = "https://rubygems.org/gems/puma-plugin-diagctl"
  spec.required_ruby_version = ">= 3.1"
  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.rb", "README.md"] }
  spec.require_paths = ["lib"]
  # The gems share internals (Diagctl::Adapters), so they are released together.
  spec.add_dependency "diagctl", Diagctl::Puma::VERSION
  spec.add_dependency "puma", ">= 5.6", "< 9"
  spec.metadata = { "rubygems_mfa_required" => "true" }
end
