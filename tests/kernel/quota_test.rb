# frozen_string_literal: true

require_relative "../torture/disk_test"

# Runs the quota test of tests/torture, which many kernels cannot run, on a kernel that has quotas. The other tests of that file run
# anywhere.
class QuotaTest < DiskTest
  def self.runnable_methods = %w[test_quota_of_the_owner]
end
DiskTest.define_singleton_method(:runnable_methods) { [] }
