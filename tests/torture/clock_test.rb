# frozen_string_literal: true

require_relative "support/torture"

# Wall clocks that are wrong, set, or set back, by means of libfaketime. The library cannot be loaded into a static program, so
# these tests run the dynamically linked debug build of the same source (DIAGCTL_TEST_DYNAMIC). CLOCK_BOOTTIME continues as it
# does on a real machine whose clock is set.
class ClockTest < Torture::Case
  DYNAMIC = ENV.fetch("DIAGCTL_TEST_DYNAMIC", File.join(E2E::ROOT, "target/debug/diagctl"))
  LIBRARY = Dir.glob("/usr/lib/*/faketime/libfaketime.so.1").first
  WRONG = { "ten years ahead" => "+10y", "ten years back" => "-10y", "in 1970" => "@1970-01-02 00:00:00" }.freeze

  def setup
    super
    flunk "no debug build at #{DYNAMIC}; run cargo build" unless File.executable?(DYNAMIC)
    flunk "libfaketime is missing; run make deps" unless LIBRARY
    configure(rule("hourly", 'timer = { every = "1h", initial_delay = "0s" }', ["gc_stat"], 'limits = { cooldown = "1h", max_count = 1, window = "24h" }'),
              retention: "keep_free = \"1%\"\nmax_age = \"14d\"\nkeep_last = 0")
  end

  def test_the_clock_is_really_set_for_the_program
    WRONG.each_value do |time|
      year = at(time) { request_id }[0, 4].to_i
      refute_equal Time.now.utc.year, year, time
    end
  end

  def test_a_wrong_clock_deletes_nothing_and_fires_nothing
    fire("2 captures of the rule and one by request")
    store_capture
    kept = acknowledged(@store)
    WRONG.each do |what, time|
      at(time) do
        assert_operator diagctl!("gc", "--json").json.fetch("deleted"), :==, 0, what
        3.times { refused(what) }
      end
      assert_equal kept, acknowledged(@store), what
      # The clock was corrected.
      3.times { refused("after it was #{what}") }
    end
    diagctl!("gc")
    assert_equal kept, acknowledged(@store)
  end

  def test_a_store_created_under_a_wrong_clock_works_once_the_clock_is_corrected
    WRONG.each_with_index do |(what, time), i|
      @store = File.join(@root, "store-#{i}")
      first = at(time) { store_capture }
      kept = acknowledged(@store)
      second = nil
      wait_until("a capture after the clock was mended, #{what}", deadline: 20, every: 0.1) { second = attempt }
      diagctl!("gc")
      assert_equal kept, acknowledged(@store).slice(*kept.keys), what
      assert_equal [second, first], captures.map { |capture| capture["id"] }, "#{what}: the newest first, whatever the clock said"
    end
  end

  def test_the_clock_is_set_during_a_capture
    WRONG.each do |what, time|
      dumper = granted_by_request
      at(time) { assert dumper.dup_with(env).put("gc_stat", "{}").ok?, what }
      at("+1y") { assert dumper.dup_with(env).finalize.ok?, what }
      dumper.close
      sums = checksums(@store, dumper.capture)
      refute_empty sums
      assert_equal 1, captures.count { |capture| capture["id"] == dumper.capture }, what
      duration = meta(dumper.capture).dig("cost", "duration_ms")
      assert_includes 0..60_000, duration, "#{what}: a duration by the wrong clock"
    end
  end

  def test_files_from_the_future_are_treated_normally
    fire("once")
    kept = acknowledged(@store)
    abandoned = File.join(@store, ".tmp-0123abcd")
    File.write(abandoned, "")
    future = Time.now + (10 * 365 * 86_400)
    Dir.glob("#{@store}/**/*", File::FNM_DOTMATCH).each { |path| File.utime(future, future, path) }
    refused("with files of the future")
    diagctl!("gc")
    assert_equal kept, acknowledged(@store)
    refute_path_exists abandoned
    store_capture
  end

  private

  # Starts everything in the block with another wall clock.
  def at(time)
    @time = time
    yield
  ensure
    @time = nil
  end

  def env(**more)
    return super unless @time

    super(LD_PRELOAD: LIBRARY, FAKETIME: @time, FAKETIME_DONT_FAKE_MONOTONIC: "1", DONT_FAKE_MONOTONIC: "1", **more)
  end

  def diagctl(*argv, env: self.env, **options) = E2E::Command.run(DYNAMIC, *argv, env: env, **options)

  # A lease holder that runs the debug build in the current environment.
  class Holder < E2E::LeaseHolder
    def dup_with(env) = dup.tap { |copy| copy.instance_variable_set(:@env, env) }

    private

    def argv(command, *rest) = [DYNAMIC, *super.drop(1)]
  end

  def holder(env: self.env) = Holder.new(@store, env)

  def request_id = diagctl!("request", "gc_stat", "--reason", "x").out.strip

  def granted_by_request
    wait_until("a grant", every: 0.1) do
      diagctl!("request", "gc_stat", "--reason", "x")
      dumper = holder
      dumper.acquire
      next dumper if dumper.granted?

      dumper.close && nil
    end
  end

  # Takes a capture by request. Returns nil if it is refused, as at the first poll after the clock was set back.
  def attempt
    diagctl!("request", "gc_stat", "--reason", "x")
    dumper = holder
    dumper.acquire
    return dumper.close && nil unless dumper.granted?

    dumper.answer.fetch("reports").each { |report| assert dumper.put(report.fetch("name"), E2E.dump("")).ok? }
    assert dumper.finalize.ok?
    dumper.capture
  ensure
    dumper&.close
  end

  # Fires the rule, which it does only once.
  def fire(what)
    dumper = holder
    result = dumper.acquire
    assert dumper.granted?, "#{what}: #{result}"
    assert_equal "hourly", dumper.answer.fetch("rule")
    dumper.put("gc_stat", "{}")
    assert dumper.finalize.ok?
    dumper.close
  end

  def refused(what)
    dumper = holder
    result = dumper.acquire
    refute dumper.granted?, "#{what}: #{result}"
    assert_equal 10, result.status, "#{what}: #{result}"
  ensure
    dumper&.close
  end
end
