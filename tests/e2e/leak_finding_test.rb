# frozen_string_literal: true

require_relative "support/e2e"

# A rule that takes three heap dumps of one process: what came between the first two and stayed is named without another command.
class LeakFindingTest < E2E::Case
  CACHE = <<~RUBY
    class Session; def initialize(user) = (@user = user; @token = "t" * 200); end
    class Cache; def initialize = @store = {}
      def add(count) = count.times { |i| @store[@store.size + i * 1_000_000] = Session.new(i) }
    end
    module Shop; CACHE = Cache.new; end
    Thread.new { loop { sleep 0.05; (File.read("\#{Dir.pwd}/add").to_i.tap { |n| File.unlink("\#{Dir.pwd}/add"); Shop::CACHE.add(n) }) rescue nil } }
  RUBY

  def test_a_cache_that_leaks_in_a_real_puma_is_named_by_show_and_diagnose_of_the_last_of_three
    configure(rule("three", 'memory_usage = { of = "process", metric = "rss", above = "1MiB" }', %w[smaps gc_stat heap_dump],
      "capture = \"three\"\npair_delay = \"4s\"\nlimits = { max_count = 1, window = \"1h\" }"))
    server = puma(initializer: CACHE)
    wait_for_captures(server, 1)
    assert_nil leak("latest")
    add(3000)
    wait_for_captures(server, 2)
    assert_match(/`Shop::CACHE → .*@store.*` grew by (2,9\d\d|3,000) Session objects \(.*\) between A and B. A third heap dump/, shown)
    add(3000)
    ids = wait_for_captures(server, 3).map { |capture| capture["id"] }.reverse
    found = leak(ids.last)
    assert_equal [ids, "Session", 100], found.values_at("captures", "class", "still_there_percent")
    # A new object at the address of a freed one of its class passes for the old one.
    assert_in_delta 3000, found["objects"], 30
    assert_operator found["bytes"], :>, 3000 * 240
    assert_match(/\AShop::CACHE → .*@store/, found["kept_by"])
    [shown, diagnosed].each do |text|
      assert_match(/`Shop::CACHE → .*` grew by (2,9\d\d|3,000) Session objects \(\d.* [KM]iB\) between A and B, and all of it is still there in C\./, text)
      assert_includes text, "C #{ids.last}"
    end
    assert_equal "diagctl heap diff #{ids.join(' ')}", diagctl!("diagnose", ids.last, "--json").json["next"].first["command"]
    assert_match(/third of three, 4s after the second/, diagctl!("show", ids.last).out)
  end

  # (what the third dump has of it)
  def test_what_is_gone_in_the_third_dump_is_no_finding
    script = start_script
    script.run("class Session; def initialize(i) = @i = i.to_s * 50; end; $cache = []")
    dump(script)
    script.run("$cache.concat(Array.new(4000) { |i| Session.new(i) })")
    dump(script)
    assert_match(/grew by (3,9\d\d|4,000) Session/, shown)
    script.run("$cache.clear; 3.times { GC.start }")
    dump(script)
    refute_match(/Session/, shown)
  end

  private

  def add(count)
    File.write(File.join(@root, "add.new"), count.to_s)
    File.rename(File.join(@root, "add.new"), File.join(@root, "add"))
    wait_until("they are added") { !File.exist?(File.join(@root, "add")) }
  end

  def dump(script) = diagctl!("request", "heap_dump", "smaps", "--pid", script.pid.to_s, "--reason", "a test", "--wait", deadline: 90)

  def leak(id) = diagctl!("diagnose", id, "--json").json["leak"]

  # Names are not broken over lines.
  def shown = diagctl!("show", "latest").out

  def diagnosed = diagctl!("diagnose", "latest").out.gsub(/\n(?! |\n)/, " ")
end
