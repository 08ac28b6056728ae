# frozen_string_literal: true

require_relative "../torture/disk_test"

# Quotas, of which many kernels have none (tests/torture then skips them): this one has. The rest of that file runs anywhere.
class QuotaTest < DiskTest
  def self.runnable_methods = %w[test_quota_of_the_owner]
end
DiskTest.define_singleton_method(:runnable_methods) { [] }
