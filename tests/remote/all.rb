# frozen_string_literal: true

# Runs all tests of shipping, or those that match: ruby tests/remote/all.rb [-n /pattern/]
Dir[File.join(__dir__, "*_test.rb")].sort.each { |file| require file }
