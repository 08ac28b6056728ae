# frozen_string_literal: true

# Runs all unit tests of the gems: ruby ruby/test_all.rb [minitest options]
%w[diagctl puma-plugin sidekiq-middleware].each do |gem|
  $LOAD_PATH.unshift(File.expand_path("#{gem}/lib", __dir__))
end
$LOAD_PATH.unshift(File.expand_path("diagctl/test", __dir__))
require "minitest/autorun"
Dir[File.expand_path("*/test/**/*_test.rb", __dir__)].sort.each { |file| require file }
