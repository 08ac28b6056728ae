# frozen_string_literal: true

# ruby tests/kernel/all.rb [-n /pattern/], inside the guest: every test of this directory, and one of the end-to-end tests that finds
# version 1 of cgroups elsewhere.
Dir[File.join(__dir__, "*_test.rb")].sort.each { |file| require file }
require_relative "../e2e/cpu_limit_test"
