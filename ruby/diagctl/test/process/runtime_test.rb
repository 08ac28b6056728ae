# frozen_string_literal: true

require_relative "../helper"

# A process that forks others must not load gems: its children could not load another version of them.
class RuntimeTest < Minitest::Test
  include Sandbox

  LIBS = %w[diagctl puma-plugin sidekiq-middleware].map { |gem| File.expand_path("../../../#{gem}/lib", __dir__) }

  # Runs Ruby without `-rdiagctl`.
  def bare(code, env: {})
    env = { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER), "DIAGCTL_DIR" => @store, "RUBYOPT" => nil }.merge(env)
    Open3.capture2e(env, RbConfig.ruby, "-w", *LIBS.map { |lib| "-I#{lib}" }, stdin_data: code).first
  end

  def test_before_start_nothing_is_loaded_and_no_gem_is_activated
    %w[1 0].each do |enabled|
      out = bare(<<~RUBY, env: { "DIAGCTL_ENABLED" => enabled })
        features, gems, threads = $LOADED_FEATURES.dup, Gem.loaded_specs.keys, Thread.list.size
        require "diagctl"
        require "diagctl/puma"
        require "diagctl/sidekiq"
        Diagctl.configure { |c| c.gauge("one") { 1 } }
        p Diagctl.wanted?
        Diagctl::Reports.load
        p ($LOADED_FEATURES - features).reject { |path| path.start_with?(*#{LIBS.inspect}) }
        p Gem.loaded_specs.keys - gems, Thread.list.size - threads
      RUBY
      said = "[diagctl] off in this process: DIAGCTL_ENABLED is 0\n" if enabled == "0"
      assert_equal "#{said}#{enabled == "1"}\n[]\n[]\n0\n", out
    end
  end

  # By then its bundle is set up, and it is not busy yet.
  def test_start_loads_the_libraries_before_it_returns
    out = bare(<<~RUBY)
      require "diagctl"
      Diagctl.start
      p defined?(JSON), defined?(Fiddle), ObjectSpace.respond_to?(:dump_all), IO.method_defined?(:nonblock=), defined?(StringIO)
    RUBY
    assert_equal %("constant"\n"constant"\ntrue\ntrue\n"constant"\n), out
  end

  def test_with_ready_the_libraries_are_loaded_once_the_application_is
    out = bare(<<~RUBY)
      require "diagctl"
      ready = false
      Diagctl.start(ready: -> { ready })
      sleep 0.5
      p defined?(JSON), defined?(Fiddle), defined?(StringIO)
      ready = true
      sleep 0.01 until File.exist?(#{File.join(@store, "calls").dump})
      p defined?(JSON), defined?(Fiddle), defined?(StringIO)
    RUBY
    assert_equal "nil\nnil\nnil\n#{"\"constant\"\n" * 3}", out
  end

  # A gem that is loaded before the bundle, in another version than the bundle's, would keep the application from booting.
  def test_a_slow_boot_is_waited_for_without_limit
    out = bare(<<~RUBY)
      require "diagctl"
      Diagctl::Poller.send(:remove_const, :READY_WAIT)
      Diagctl::Poller::READY_WAIT = 0.1
      asked = 0
      Diagctl.start(ready: -> { (asked += 1) > 5 })
      sleep 0.01 until asked == 5
      p defined?(JSON)
      sleep 0.01 until File.exist?(#{File.join(@store, "calls").dump})
      p defined?(JSON), asked
    RUBY
    assert_equal %(nil\n"constant"\n6\n), out
  end

  def test_a_capture_before_the_application_is_ready_loads_the_libraries
    out = bare(<<~RUBY)
      require "diagctl"
      Diagctl.start(ready: -> { false })
      result = Diagctl.capture
      p result.verdict, result.reason, defined?(JSON)
    RUBY
    assert_equal %("idle"\n"nothing due"\n"constant"\n), out
  end

  # For example a broken json in the bundle.
  def test_a_library_that_cannot_be_loaded_is_one_line_and_ends_only_the_thread
    File.write(File.join(@dir, "json.rb"), "raise LoadError, 'cannot load such file -- json/ext'")
    env = { "RUBYLIB" => @dir }
    line = /cannot load such file -- json\/ext/
    out = bare(<<~RUBY, env: env)
      require "diagctl"
      p Diagctl.start
      p Thread.list.size
    RUBY
    assert_match(/\A\[diagctl\] not started: LoadError: #{line}\nfalse\n1\n\z/, out)
    out = bare(<<~RUBY, env: env)
      require "diagctl"
      p Diagctl.start(ready: -> { true })
      sleep 0.01 until Thread.list.size == 1
      p Diagctl.capture.verdict
    RUBY
    # The thread may log before the main thread prints.
    log, results = out.lines.partition { |printed| printed.start_with?("[diagctl]") }
    assert_equal ["true\n", "\"failed\"\n"], results
    assert_match(/\A\[diagctl\] polling cannot start: LoadError: #{line}\n\z/, log.join)
  end
end
