# frozen_string_literal: true

# Runs all tests of gems and packages, or those that match: ruby tests/package/all.rb [-n /pattern/]
Dir[File.join(__dir__, "*_test.rb")].sort.each { |file| require file }
