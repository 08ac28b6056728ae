# frozen_string_literal: true

# ruby tests/kernel/all.rb [-n /pattern/], inside the guest: every test of this directory.
Dir[File.join(__dir__, "*_test.rb")].sort.each { |file| require file }
