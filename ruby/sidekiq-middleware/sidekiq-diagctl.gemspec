# frozen_string_literal: true

require_relative "lib/diagctl/sidekiq/version"

Gem::Specification.new do |spec|
  spec.name = "sidekiq-diagctl"
  spec.version = Diagctl::Sidekiq::VERSION
  spec.summary = "Sidekiq middleware for diagctl"
  spec.description = "`Diagctl::Sidekiq.install(config)`: every Sidekiq process can make its own diagnostic reports, and shows which " \
    "job was responsible. Sidekiq 6.4 to 8.1, also embedded."
  spec.authors = ["The diagctl authors"]
  spec.license = "MIT"
  spec.homepage = "https://rubygems.org/gems/sidekiq-diagctl"
  spec.required_ruby_version = ">= 3.1"
  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.rb", "README.md"] }
  spec.require_paths = ["lib"]
  # The gems share internals (Diagctl::Adapters), so they are released together.
  spec.add_dependency "diagctl", Diagctl::Sidekiq::VERSION
  spec.add_dependency "sidekiq", ">= 6.4", "< 9"
  spec.metadata = { "rubygems_mfa_required" => "true" }
end
