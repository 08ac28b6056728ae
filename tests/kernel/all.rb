# frozen_string_literal: true

# ruby tests/kernel/all.rb [-n /pattern/], inside the guest: every test in this directory, and the end-to-end test of CPU limits, which
# elsewhere finds cgroup v1.
Dir[File.join(__dir__, "*_test.rb")].sort.each { |file| require file }
require_relative "../e2e/cpu_limit_test"
