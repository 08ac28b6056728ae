# frozen_string_literal: true

require "rbconfig"
require "tempfile"

# Runs test files in several processes at once, because most tests wait. With options for minitest (-n /pattern/) it runs them in this one.
module SideBySide
  PROCESSES = 3

  # @param files [Array<String>]
  # @return [Boolean, nil] true if all tests passed; nil if they run when this process ends
  def self.run(files)
    return files.each { |file| require file } && nil if ARGV.any?

    running = files.sort.group_by.with_index { |_, i| i % PROCESSES }.values.map do |some|
      log = Tempfile.new("diagctl-tests")
      [spawn(RbConfig.ruby, *some.flat_map { |file| ["-r", file] }, "-e", "", %i[out err] => log.path), log]
    end
    running.map do |pid, log|
      Process.wait(pid)
      status = $?
      puts File.read(log.path)
      $stdout.flush
      status.success?
    end.all?
  end
end
