# frozen_string_literal: true

# Runs the unit tests of the gems in Ruby 4.0 as WebAssembly. This Ruby has no processes, threads, pipes, sockets, Fiddle or
# /proc, and its files have no permissions. A test that fails after it has used one of those is skipped, and the missing feature
# is reported.
$stdout.sync = $stderr.sync = true
$LOAD_PATH.unshift("/checkout/tests/ruby40/stubs", *Dir["/gems/minitest-*/lib"])
require "minitest"

# If fewer tests pass, the skipped ones must be reviewed.
EXPECTED = 35

module Absent
  NAMES = %i[Fiddle Socket UNIXSocket TCPServer TCPSocket CLOCK_THREAD_CPUTIME_ID].freeze
  MESSAGES = Regexp.union("fiddle cannot be loaded", "PosixSpawn to be available", "unsupported signal", "wrong exec option",
    %r{No such file or directory .*- /(proc|dev)/}, "@ rb_file_s_symlink", "@ rb_file_flock")

  class << self
    # The first missing feature that the running test used.
    attr_accessor :wanted
    # The number of tests that passed in the whole run.
    attr_accessor :passed
    attr_reader :skipped

    # Records a missing feature. Its exception may be rescued before the test fails.
    def note(error)
      @wanted ||= "#{error.class}: #{error.message.lines.first}".chomp.sub(%r{/tmp/.*}, "a file") if absent?(error)
    end

    private

    def absent?(error)
      case error
      when NotImplementedError, Errno::ENOSYS, Errno::ENOTSUP then true
      when NameError then NAMES.include?(error.name)
      else MESSAGES.match?(error.message)
      end
    end
  end
  @passed = 0
  @skipped = Hash.new(0)

  # Runs setup, test and teardown.
  def run
    Absent.wanted = nil
    result = super
    Absent.passed += 1 if result.passed?
    if Absent.wanted && !result.passed? && !result.skipped?
      Absent.skipped[Absent.wanted] += 1
      result.failures = [Minitest::Skip.new("not in this Ruby: #{Absent.wanted}").tap { |skip| skip.set_backtrace([]) }]
    end
    result
  end
end

Minitest::Test.prepend(Absent)
# These methods have no effect or a wrong one here, but raise nothing.
File::Stat.prepend(Module.new { def mode = super.tap { Absent.wanted ||= "file permissions" } })
File.singleton_class.prepend(Module.new { def symlink(*) = super.tap { Absent.wanted ||= "symbolic links" } })
# Disables threads, and plugins, which Minitest 5 finds through RubyGems.
Minitest.parallel_executor = Object.new.tap { |executor| def executor.shutdown = nil }
Minitest.define_singleton_method(:load_plugins) { nil }
load "/checkout/ruby/test_all.rb"
Sandbox.define_method(:warn) { |*| nil } # Directories that a test leaves behind vanish with this Ruby.
puts "versions WebAssembly | #{RUBY_VERSION} | - | - | -"
passed = TracePoint.new(:raise) { |raised| Absent.note(raised.raised_exception) }.enable { Minitest.run([]) }
Absent.skipped.sort_by { |_, tests| -tests }.each { |what, tests| puts "skipped #{tests}: #{what}" }
raise "a test failed" unless passed
raise "only #{Absent.passed} tests need nothing that is absent" if Absent.passed < EXPECTED
