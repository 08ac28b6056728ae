# frozen_string_literal: true

# Runs all end-to-end tests, in two processes because most of them wait, or in one those that match: ruby tests/e2e/all.rb [-n /pattern/]
require "rbconfig"
require "tempfile"

FILES = Dir[File.join(__dir__, "*_test.rb")].sort
if ARGV.any?
  FILES.each { |file| require file }
else
  halves = FILES.partition.with_index { |_, i| i.even? }.map do |files|
    log = Tempfile.new("diagctl-e2e")
    [spawn(RbConfig.ruby, *files.flat_map { |file| ["-r", file] }, "-e", "", %i[out err] => log.path), log]
  end
  passed = halves.map do |pid, log|
    Process.wait(pid)
    status = $?
    puts File.read(log.path)
    $stdout.flush
    status.success?
  end
  exit passed.all?
end
