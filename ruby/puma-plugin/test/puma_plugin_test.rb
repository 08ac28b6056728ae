# frozen_string_literal: true

require_relative "../../diagctl/test/helper"
$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))

# Boots the Puma of this machine without serving requests. tests/ starts real servers.
class PumaPluginTest < Minitest::Test
  include Sandbox

  PLUGIN_LIB = File.expand_path("../lib", __dir__)

  def puma(code, env = {})
    env = { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER), "RUBYLIB" => PLUGIN_LIB,
            "CONFIG" => File.join(@dir, "puma.rb") }.merge(env)
    preamble = <<~RUBY
      require "puma"
      require "puma/configuration"
      require "puma/launcher"
      writer = (defined?(Puma::LogWriter) ? Puma::LogWriter : Puma::Events).strings
      out = -> { writer.stdout.string + writer.stderr.string }
      app = ->(_) { [200, {}, []] }
      configuration = Puma::Configuration.new({ config_files: [ENV["CONFIG"]], app: app })
      launcher = Puma::Launcher.new(configuration, { (defined?(Puma::LogWriter) ? :log_writer : :events) => writer })
      fire = -> { configuration.plugins.fire_starts(launcher) }
      _ = [out, fire]
    RUBY
    ruby(preamble + code, env: env)
  end

  def config(text)
    File.write(File.join(@dir, "puma.rb"), text)
  end

  def test_it_defines_no_config_so_the_first_option_survives
    config("environment 'first'\nworkers 2\nplugin :diagctl\nthreads 1, 2\n")
    out, = puma(<<~RUBY)
      plugin = Puma::Plugins.find(:diagctl).new
      p plugin.respond_to?(:start), plugin.respond_to?(:config), launcher.options[:environment], launcher.options[:workers]
    RUBY
    assert_equal "true\nfalse\n\"first\"\n2\n", out
  end

  def test_in_a_cluster_the_master_starts_no_thread_and_the_worker_hook_starts_one
    # Renamed in Puma 7, which warns about the old name.
    hook = "public_send(respond_to?(:before_worker_boot) ? :before_worker_boot : :on_worker_boot)"
    config("workers 2\nplugin :diagctl\n#{hook} { |i| print 'user ', i, ' ' }\n")
    out, = puma(<<~RUBY)
      before = Thread.list.size
      fire.call
      p Thread.list.size == before, Diagctl.started?
      hooks = launcher.options.all_of(:before_worker_boot).map { |hook| hook.is_a?(Hash) ? hook[:block] : hook }
      hooks.each { |hook| hook.call(1) }
      p Diagctl.started?, Diagctl.adapters.versions["puma"] == Puma::Const::VERSION
      print out.call
      Diagctl.stop
    RUBY
    assert_equal "true\nfalse\nuser 1 true\ntrue\n", out
  end

  # Once requests are served, the poll thread would rarely get the GVL.
  def test_a_worker_loads_the_libraries_right_after_the_application_and_the_master_never
    config("workers 2\nplugin :diagctl\n")
    out, = puma(<<~RUBY)
      fire.call
      loaded = -> { Diagctl::Runtime.loaded? }
      in_a_worker = ->(&block) { Process.wait(fork { p(block.call && loaded.call) }) }
      boot = -> { launcher.options.all_of(:before_worker_boot).each { |hook| (hook.is_a?(Hash) ? hook[:block] : hook).call(0) } }
      in_a_worker.call { boot.call }
      in_a_worker.call { boot.call && configuration.app.respond_to?(:call) }
      p configuration.app.respond_to?(:call), loaded.call
      in_a_worker.call { boot.call }
    RUBY
    assert_equal "false\ntrue\ntrue\nfalse\ntrue\n", out
  end

  def test_in_single_mode_it_starts_when_booted
    config("plugin :diagctl\n")
    out, = puma(<<~RUBY)
      fire.call
      p Diagctl.started?
      launcher.events.respond_to?(:fire_after_booted!) ? launcher.events.fire_after_booted! : launcher.events.fire_on_booted!
      p Diagctl.started?
      print out.call
      Diagctl.stop
    RUBY
    assert_equal "false\ntrue\n", out
  end

  def test_a_missing_binary_is_one_line_in_pumas_log_and_adds_no_hook
    config("workers 2\nplugin :diagctl\n")
    out, = puma(<<~RUBY, "DIAGCTL_BIN" => "/nonexistent/diagctl")
      fire.call
      p launcher.options.all_of(:before_worker_boot).size
      print out.call
    RUBY
    assert_match(%r{\A0\n.*\[diagctl\] DIAGCTL_BIN=/nonexistent/diagctl is not an executable file[^\n]*\n\z}, out)
  end

  def test_the_report_and_gauges_come_from_the_server_of_this_process
    config("plugin :diagctl\nthreads 1, 3\nbind 'tcp://127.0.0.1:0'\n")
    out, = puma(<<~RUBY)
      require "net/http"
      fire.call
      reports = Diagctl.adapters.reports
      io = StringIO.new
      refused = -> { reports.fetch("puma").call(StringIO.new, {}) rescue $!.message }
      p refused.call
      Thread.new { launcher.run }
      sleep 0.05 until launcher.connected_ports.any? && Diagctl.started?
      p Gem::Version.new(Puma::Const::VERSION) < Gem::Version.new("7.1") ? refused.call[/served no request/] : "served no request"
      Net::HTTP.get(URI("http://127.0.0.1:\#{launcher.connected_ports.first}/"))
      reports.fetch("puma").call(io, {})
      data = JSON.parse(io.string)
      p data["server"]["max_threads"], data["server"]["requests_count"], data["options"]["max_threads"]
      # The response arrives a moment before the thread is idle again.
      sleep 0.01 until Diagctl.adapters.gauges["puma.busy_threads"].call.zero?
      p Diagctl.adapters.gauges.transform_values(&:call).slice("puma.max_threads", "puma.backlog", "puma.busy_threads")
      $stdout.flush
      exit!(0)
    RUBY
    assert_equal <<~TEXT, out
      "no Puma server is running in this process"
      "served no request"
      3
      1
      3
      #{{ "puma.max_threads" => 3, "puma.backlog" => 0, "puma.busy_threads" => 0 }}
    TEXT
  end
end
