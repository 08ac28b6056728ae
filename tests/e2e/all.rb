# frozen_string_literal: true

# Runs all end-to-end tests, in three processes because most of them wait, or in one those that match: ruby tests/e2e/all.rb [-n /pattern/]
require "rbconfig"
require "tempfile"

PROCESSES = 3
FILES = Dir[File.join(__dir__, "*_test.rb")].sort
if ARGV.any?
  FILES.each { |file| require file }
else
  running = FILES.group_by.with_index { |_, i| i % PROCESSES }.values.map do |files|
    log = Tempfile.new("diagctl-e2e")
    [spawn(RbConfig.ruby, *files.flat_map { |file| ["-r", file] }, "-e", "", %i[out err] => log.path), log]
  end
  passed = running.map do |pid, log|
    Process.wait(pid)
    status = $?
    puts File.read(log.path)
    $stdout.flush
    status.success?
  end
  exit passed.all?
end
