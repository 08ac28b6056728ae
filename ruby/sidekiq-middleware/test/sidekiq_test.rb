# frozen_string_literal: true

require_relative "../../diagctl/test/helper"

# Loads the Sidekiq of this machine, without Redis. tests/ starts real servers.
class SidekiqTest < Minitest::Test
  include Sandbox

  SIDEKIQ_LIB = File.expand_path("../lib", __dir__)
  # The object that Sidekiq.configure_server yields, in any version.
  SERVER = <<~RUBY
    require "stringio"
    require "sidekiq/cli"
    require "diagctl/sidekiq"
    CONFIG = Sidekiq.respond_to?(:default_configuration) ? Sidekiq.default_configuration : Sidekiq
    LINES = []
    logger = Logger.new(StringIO.new, formatter: ->(_, _, _, message) { LINES << message; "" })
    CONFIG.logger = logger
    OPTIONS = CONFIG.respond_to?(:[]) ? CONFIG : CONFIG.options
    QUEUES = ->(list) { CONFIG.respond_to?(:queues=) ? CONFIG.queues = list : OPTIONS[:queues] = list.map { |queue| queue[/\\w+/] } }
    FIRE = ->(event) { OPTIONS[:lifecycle_events][event].each(&:call) }
    CHAIN = -> { CONFIG.server_middleware.map(&:klass) }
  RUBY

  # Without -w, because warnings of Sidekiq itself do not matter here.
  def sidekiq(code, preamble: SERVER, env: {})
    env = { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => binary(IDLE_ANSWER), "RUBYLIB" => SIDEKIQ_LIB }.merge(env)
    out, status = ruby("$VERBOSE = false\n#{preamble}\n#{code}", env: env)
    assert status.success?, out
    out
  end

  def test_the_gem_loads_without_sidekiq_and_changes_nothing
    [%w[diagctl/sidekiq], %w[sidekiq-diagctl], %w[sidekiq-middleware-diagctl], %w[sidekiq diagctl/sidekiq], %w[diagctl/sidekiq sidekiq], %w[sidekiq/cli diagctl/sidekiq],
     %w[diagctl/sidekiq sidekiq/cli]].each do |libraries|
      out = sidekiq(<<~RUBY, preamble: "")
        before = Thread.list.size
        #{libraries.map { |library| "require #{library.inspect}" }.join("\n")}
        p Thread.list.size == before, Diagctl.started?, Diagctl.adapters.gauges, Diagctl.adapters.versions.key?("sidekiq")
        p defined?(Sidekiq) ? #{libraries.any? { |library| library.match?(%r{\Asidekiq(/cli)?\z}) }} : true
        if defined?(Sidekiq::VERSION)
          config = Sidekiq.respond_to?(:default_configuration) ? Sidekiq.default_configuration : Sidekiq
          p config.server_middleware.map(&:klass).grep(/Diagctl/)
        end
      RUBY
      assert_match(/\Atrue\nfalse\n\{\}\nfalse\ntrue\n(\[\]\n)?\z/, out, libraries.inspect)
    end
  end

  def test_the_poll_thread_runs_from_startup_to_shutdown_including_quiet
    out = sidekiq(<<~RUBY)
      p Diagctl::Sidekiq.install(CONFIG), Diagctl.started?, CHAIN.().first
      FIRE.(:startup)
      p Diagctl.started?
      FIRE.(:quiet)
      p Diagctl.started?
      FIRE.(:shutdown)
      p Diagctl.started?, LINES
    RUBY
    assert_equal "true\nfalse\nDiagctl::Sidekiq::ServerMiddleware\ntrue\ntrue\nfalse\n[]\n", out
  end

  def test_the_name_is_sidekiqs_tag_or_the_given_name
    [["", "{}", "sidekiq"], ["mailers", "{}", "mailers"], ["--odd\nname", "{}", "odd name"], ["mailers", '{ name: "low" }', "low"],
     ["\u0436" * 100, "{}", "\u0436" * 64], ["caf\xE9", "{}", 'caf\?']].each do |tag, options, name|
      calls_file = File.join(@store, "calls")
      FileUtils.rm_f(calls_file)
      sidekiq(<<~RUBY)
        OPTIONS[:tag] = #{tag.inspect}
        Diagctl::Sidekiq.install(CONFIG, **#{options})
        FIRE.(:startup)
        sleep 0.02 until File.exist?(#{calls_file.inspect}) && File.read(#{calls_file.inspect}).match?(/^acquire /)
      RUBY
      assert_match(/--role=?\s?sidekiq .*--name=?\s?#{name}/, calls("acquire").first)
    end
  end

  def test_the_poll_thread_of_puma_is_not_replaced
    out = sidekiq(<<~RUBY)
      Diagctl::Sidekiq.install(CONFIG)
      Diagctl.start(role: "puma", name: "worker-0")
      FIRE.(:startup)
      FIRE.(:shutdown)
      p Diagctl.started?
    RUBY
    assert_equal "true\n", out
  end

  def test_every_process_of_a_swarm_has_its_own_thread
    out = sidekiq(<<~RUBY)
      Diagctl::Sidekiq.install(CONFIG)
      2.times { fork { FIRE.(:startup); puts Diagctl.started?; FIRE.(:shutdown); puts Diagctl.started? } }
      Process.waitall
      p Diagctl.started?
    RUBY
    assert_equal %w[false false false true true], out.split.sort
  end

  # Each failure is one line in the log, and the process continues.
  def test_every_refusal_is_logged_once
    {
      "twice" => ["3.times { Diagctl::Sidekiq.install(CONFIG) }; puts LINES", /\A.*already installed, and the first call remains in effect\n\z/],
      "garbage" => ["2.times { p Diagctl::Sidekiq.install(:nothing) }", /\A(\[diagctl\] .*install takes the object that Sidekiq.configure_server yields, not :nothing\n)false\nfalse\n\z/],
      "too old" => ["Sidekiq.send(:remove_const, :VERSION); Sidekiq::VERSION = '6.3.1'; p Diagctl::Sidekiq.install(CONFIG), CHAIN.()",
                    /\A\[diagctl\] .*Sidekiq 6.3.1 is too old; 6.4 or later is required\nfalse\n\[.*\]\n\z/]
    }.each do |what, (code, expected)|
      assert_match(expected, sidekiq(code), what)
    end
  end

  def test_a_process_that_runs_no_jobs_is_refused_and_unchanged
    out = sidekiq(<<~RUBY, preamble: "require 'sidekiq'; require 'diagctl/sidekiq'")
      config = Sidekiq.respond_to?(:default_configuration) ? Sidekiq.default_configuration : Sidekiq
      p Diagctl::Sidekiq.install(config)
      p config.server_middleware.map(&:klass) & [Diagctl::Sidekiq::ServerMiddleware], Diagctl.adapters.gauges
      Sidekiq.configure_server { |c| Diagctl::Sidekiq.install(c) }
    RUBY
    assert_match(/\A\[diagctl\] .*this process runs no jobs; call install inside Sidekiq.configure_server\nfalse\n\[\]\n\{\}\n\z/, out)
  end

  def test_without_sidekiq_it_is_refused
    out = sidekiq("p Diagctl::Sidekiq.install(Object)", preamble: "require 'diagctl/sidekiq'")
    assert_match(/\A\[diagctl\] .*install takes the object that Sidekiq.configure_server yields, not Object\nfalse\n\z/, out)
  end

  def test_when_off_it_logs_one_line_and_does_nothing_else
    { { "DIAGCTL_ENABLED" => "0" } => /off in this process: DIAGCTL_ENABLED is 0/,
      { "DIAGCTL_ENABLED" => nil, "DIAGCTL_CONFIG" => nil } => /off in this process: DIAGCTL_ENABLED is not set/,
      { "DIAGCTL_ENABLED" => "maybe" } => /DIAGCTL_ENABLED="maybe" is not one of/,
      { "DIAGCTL_BIN" => "/nonexistent" } => %r{DIAGCTL_BIN=/nonexistent is not} }.each do |env, line|
      out = sidekiq("p Diagctl::Sidekiq.install(CONFIG), CHAIN.().grep(/Diagctl/), LINES.size; puts LINES", env: env)
      assert_match(/\Afalse\n\[\]\n1\n.*#{line}.*\n\z/, out)
    end
  end

  def test_an_error_in_sidekiq_does_not_break_the_boot
    out = sidekiq("CONFIG.define_singleton_method(:on) { |*| raise FrozenError, 'frozen' }; p Diagctl::Sidekiq.install(CONFIG); puts LINES")
    assert_match(/\Afalse\n.*did nothing: FrozenError: frozen\n\z/, out)
  end

  def test_queue_latency_without_redis_has_no_value_and_logs_one_line
    out = sidekiq(<<~RUBY, env: { "REDIS_URL" => "unix://#{@dir}/nobody.sock" })
      QUEUES.(%w[default])
      Diagctl::Sidekiq.install(CONFIG, queue_latency: true)
      gauges = Diagctl::Gauges.new(Diagctl.configuration, Diagctl.log, Diagctl.adapters)
      2.times { p gauges.read_all.slice("sidekiq.busy", "sidekiq.queue_latency") }
      puts LINES.grep(/\\[diagctl\\]/)
    RUBY
    assert_match(/\A(#{Regexp.escape({ "sidekiq.busy" => 0 }.inspect)}\n){2}.*gauge sidekiq.queue_latency raised .*\n\z/, out)
  end

  def test_the_report_names_jobs_and_growth_but_no_arguments
    out = sidekiq(<<~RUBY)
      class Bloat
        include Sidekiq::Job
        def perform(*) = KEPT << ("x" * (32 << 20))
      end
      KEPT = []
      QUEUES.(%w[low,1 high,2])
      Diagctl::Sidekiq.install(CONFIG, job_rss: true)
      FIRE.(:startup)
      run = ->(job, &block) { CONFIG.server_middleware.invoke(nil, { "class" => job, "jid" => job.downcase, "args" => ["s3cret"] }, "low", &block) }
      run.("Bloat") { Bloat.new.perform }
      run.("Small") do
        io = StringIO.new
        Diagctl.adapters.reports.fetch("sidekiq").call(io, {})
        puts io.string
      end
    RUBY
    refute_includes out, "s3cret"
    report = JSON.parse(out)
    assert_equal [%w[low high], 1], [report["queues"], report["busy"]]
    assert_equal %w[low high], report.dig("capsules", "default", "queues")
    assert_equal report["concurrency"], report.dig("capsules", "default", "concurrency")
    assert_equal [%w[Small small low]], report["jobs"].map { |job| job.values_at("class", "jid", "queue") }
    assert_operator report["jobs"].first["seconds"], :>=, 0
    assert_equal [["Bloat", 1]], report["classes"].map { |entry| entry.values_at("class", "count") }
    assert_equal ["Bloat", false], report["grew_most"].values_at("class", "running")
    assert_in_delta 32 << 20, report["grew_most"]["bytes"], 8 << 20
  end

  def test_fake_and_inline_testing_still_work
    out = sidekiq(<<~RUBY)
      # Before 8.1 the library warns here.
      Sidekiq.respond_to?(:testing!) ? Sidekiq.testing!(:fake) : require("sidekiq/testing")
      class Noted
        include Sidekiq::Job
        def perform(word) = puts(word)
      end
      Diagctl::Sidekiq.install(CONFIG)
      Sidekiq::Testing.server_middleware { |chain| chain.add Diagctl::Sidekiq::ServerMiddleware }
      Noted.perform_async("fake")
      p Noted.jobs.size
      Noted.drain
      Sidekiq::Testing.inline! { Noted.perform_async("inline") }
      p Diagctl::Sidekiq.jobs.busy, Diagctl::Sidekiq.jobs.tallies["Noted"].count
    RUBY
    assert_equal "1\nfake\ninline\n0\n2\n", out
  end
end
