# frozen_string_literal: true

# Runs all end-to-end tests, or those that match: ruby tests/e2e/all.rb [-n /pattern/]
require_relative "../side_by_side"

exit false if SideBySide.run(Dir[File.join(__dir__, "*_test.rb")]) == false
