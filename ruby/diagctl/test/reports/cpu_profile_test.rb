# frozen_string_literal: true

require_relative "../helper"

class CpuProfileTest < Minitest::Test
  include Sandbox

  # As in a bundle whose Gemfile says `require: false`.
  BUNDLED = 'gem "stackprof"'
  PROFILE = <<~RUBY
    Diagctl::Runtime.load
    io = StringIO.new
    def keep_busy = Array.new(100) { |i| i.to_s }
    Thread.new { loop { keep_busy } }
    profile = -> { Diagctl::Reports::CpuProfile.new.call(io, "duration" => 0.5) }
    define_method(:refused) { profile.call && "not refused" rescue $!.message }
  RUBY

  def test_stackprof_finds_the_busy_frame_and_leaves_nothing_running
    out, = ruby(<<~RUBY)
      #{BUNDLED}
      #{PROFILE}
      profile.call
      results = JSON.parse(io.string)
      p results.fetch("mode"), results.fetch("samples").positive?, results.fetch("raw").any?
      p results.fetch("frames").values.any? { |frame| frame["name"].include?("keep_busy") }
      p StackProf.running?
      io.truncate(0)
      profile.call
    RUBY
    assert_equal "\"cpu\"\ntrue\ntrue\ntrue\nfalse\n", out
  end

  def test_a_profile_of_the_application_is_not_disturbed
    out, = ruby(<<~RUBY)
      #{BUNDLED}
      #{PROFILE}
      StackProf.start(mode: :wall)
      puts refused, StackProf.running?
      StackProf.stop
      Signal.trap("PROF") { }
      puts refused
    RUBY
    busy = "a profile is already running in this process: "
    assert_equal "#{busy}stackprof is running\ntrue\n#{busy}SIGPROF has a handler\n", out
  end

  def test_a_killed_thread_ends_its_profile
    out, = ruby(<<~RUBY)
      #{BUNDLED}
      #{PROFILE}
      thread = Thread.new { Diagctl::Reports::CpuProfile.new.call(io, "duration" => 30) }
      sleep 0.01 until StackProf.running?
      thread.kill.join
      p StackProf.running?
    RUBY
    assert_equal "false\n", out
  end

  # A `require` takes seconds while other threads are computing, even for a gem that does not exist.
  def test_a_profiler_that_is_not_loaded_is_named_and_not_searched
    out, = ruby(<<~RUBY)
      #{PROFILE}
      Kernel.prepend(Module.new { def require(name) = abort("it requires \#{name}") })
      puts refused
      puts((Diagctl::Reports::CpuProfile.new.call(io, "duration" => 3600) rescue $!.message))
    RUBY
    assert_match(/\Aneither vernier nor stackprof is loaded in this process \(hint: .*\)\nduration 3600 is not .* up to 60\n\z/, out)
  end

  def test_a_profiler_that_cannot_be_loaded_does_not_stop_the_boot
    out, = ruby(<<~RUBY)
      #{BUNDLED}
      Kernel.prepend(Module.new { def require(name) = name == "stackprof" ? raise(LoadError, "wrong architecture") : super })
      #{PROFILE}
      puts refused
    RUBY
    assert_match(/\Aneither vernier nor stackprof is loaded/, out)
  end

  # A fake with the documented methods: Debian does not have the real vernier, which needs Ruby 3.2.
  VERNIER = <<~RUBY
    module Vernier
      Collector = Struct.new(:mode) do
        def start = puts("started")
        def stop = puts("stopped") || mode
      end
      module Output
        Firefox = Struct.new(:result) { def output = "profile of \#{result}" }
      end
    end
  RUBY

  def test_vernier_is_preferred_when_it_is_loaded
    out, = ruby(<<~RUBY)
      #{VERNIER}
      #{BUNDLED}
      #{PROFILE}
      profile.call
      puts io.string
    RUBY
    assert_equal "started\nstopped\nprofile of wall\n", out
  end

  # The real vernier would abort the process at the next tick of stackprof's timer.
  def test_vernier_does_not_take_the_signal_of_another_profiler
    out, = ruby(<<~RUBY)
      #{VERNIER}
      #{BUNDLED}
      #{PROFILE}
      StackProf.start(mode: :cpu)
      puts refused
    RUBY
    assert_equal "a profile is already running in this process: SIGPROF has a handler\n", out
  end
end
