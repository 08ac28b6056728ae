# frozen_string_literal: true

# Runs all unit tests of the gems: ruby ruby/test_all.rb [minitest options]
require_relative "../tests/side_by_side"

paths = %w[diagctl puma-plugin sidekiq-middleware].map { |gem| File.expand_path("#{gem}/lib", __dir__) } << File.expand_path("diagctl/test", __dir__)
$LOAD_PATH.unshift(*paths)
# For the processes that are started.
ENV["RUBYLIB"] = [*paths, ENV["RUBYLIB"]].compact.join(":")
exit false if SideBySide.run(Dir[File.expand_path("*/test/**/*_test.rb", __dir__)]) == false
