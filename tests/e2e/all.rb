# frozen_string_literal: true

# Runs all end-to-end tests, or those that match: ruby tests/e2e/all.rb [-n /pattern/]
Dir[File.join(__dir__, "*_test.rb")].sort.each { |file| require file }
