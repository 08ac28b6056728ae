# frozen_string_literal: true

# Runs test files in several processes at once, because most tests wait. With options for minitest (-n /pattern/), or with a Ruby that cannot start
# processes (WebAssembly), they run in this one.
module SideBySide
  PROCESSES = 3

  class << self
    # @param files [Array<String>]
    # @return [Boolean, nil] true if all tests passed; nil if they run when this process ends
    def run(files)
      return here(files) if ARGV.any? || !Process.respond_to?(:fork)

      require "rbconfig"
      require "tempfile"
      files.sort.group_by.with_index { |_, i| i % PROCESSES }.values.map { |some| start(some) }.map { |pid, log| ended?(pid, log) }.all?
    end

    private

    def here(files)
      require "minitest/autorun"
      files.sort.each { |file| require file }
      nil
    end

    def start(files)
      log = Tempfile.new("diagctl-tests")
      [spawn(RbConfig.ruby, *files.flat_map { |file| ["-r", file] }, "-e", "", %i[out err] => log.path), log]
    end

    def ended?(pid, log)
      Process.wait(pid)
      passed = $?.success?
      puts File.read(log.path)
      $stdout.flush
      passed
    end
  end
end
