# frozen_string_literal: true

require_relative "lib/diagctl/version"

Gem::Specification.new do |spec|
  spec.name = "diagctl"
  spec.version = Diagctl::VERSION
  spec.summary = "Diagnostic reports from production Ruby processes, made by the processes themselves"
  spec.description = "Polls the diagctl program from a thread of the process; when the operator's rules grant it, hands over " \
    "a heap dump (from a forked child), allocator statistics, backtraces and more, and goes back to serving."
  spec.authors = ["The diagctl authors"]
  spec.license = "MIT"
  spec.homepage = "https://rubygems.org/gems/diagctl"
  # Process._fork, which the lease's fork guard needs.
  spec.required_ruby_version = ">= 3.1"
  # No dependency on fiddle, which comes with every Ruby: `extra_runtime_dependencies` would have Puma activate it in the
  # master, where a bundle that wants another version could never boot a worker again.
  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.rb", "exe/*", "README.md"] }
  spec.require_paths = ["lib"]
  spec.metadata = { "rubygems_mfa_required" => "true" }
end
