# frozen_string_literal: true

# ruby tests/e2e/all.rb [-n /pattern/]: every end-to-end test, or those that match.
Dir[File.join(__dir__, "*_test.rb")].sort.each { |file| require file }
