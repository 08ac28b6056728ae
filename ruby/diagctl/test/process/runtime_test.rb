# frozen_string_literal: true

require_relative "../helper"

# A process that forks others must stay free of gems: its children could not load another version of them.
class RuntimeTest < Minitest::Test
  include Sandbox

  LIBS = %w[diagctl puma-plugin sidekiq-middleware].map { |gem| File.expand_path("../../../#{gem}/lib", __dir__) }

  # A Ruby without `-rdiagctl`.
  def bare(code, env: {})
    env = { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER), "DIAGCTL_DIR" => @store, "RUBYOPT" => nil }.merge(env)
    Open3.capture2e(env, RbConfig.ruby, "-w", *LIBS.map { |lib| "-I#{lib}" }, stdin_data: code).first
  end

  def test_until_it_starts_nothing_is_loaded_and_no_gem_is_activated
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
      assert_equal "#{enabled == "1"}\n[]\n[]\n0\n", out
    end
  end

  # It has its bundle; and before it is busy.
  def test_a_process_that_starts_loads_what_it_needs_before_the_call_returns
    out = bare(<<~RUBY)
      require "diagctl"
      Diagctl.start
      p defined?(JSON), defined?(Fiddle), ObjectSpace.respond_to?(:dump_all), IO.method_defined?(:nonblock=), defined?(StringIO)
    RUBY
    assert_equal %("constant"\n"constant"\ntrue\ntrue\n"constant"\n), out
  end

  def test_where_the_application_comes_later_it_is_loaded_when_that_is_there
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

  # Loaded before the bundle, a gem of another version than the bundle's would keep the application from booting.
  def test_an_application_that_boots_slowly_is_waited_for_without_a_limit
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

  def test_a_capture_before_that_loads_it_too
    out = bare(<<~RUBY)
      require "diagctl"
      Diagctl.start(ready: -> { false })
      result = Diagctl.capture
      p result.verdict, result.reason, defined?(JSON)
    RUBY
    assert_equal %("idle"\n"nothing due"\n"constant"\n), out
  end

  # A broken json in the bundle, say.
  def test_what_cannot_be_loaded_is_one_line_and_ends_the_thread_only
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
