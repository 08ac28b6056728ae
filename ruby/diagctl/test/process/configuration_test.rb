# frozen_string_literal: true

require_relative "../helper"

class ConfigurationTest < Minitest::Test
  def setup
    @config = Diagctl::Configuration.new
  end

  def test_a_wrong_declaration_gives_the_name_the_value_and_a_hint
    {
      -> { @config.enabled } => /enabled needs a block, for example/,
      -> { @config.gauge("Cache Entries") { 1 } } => /gauge "Cache Entries" is not a valid name; use one like "cache.entries"/,
      -> { @config.gauge(nil) { 1 } } => /gauge nil is not a valid name/,
      -> { @config.gauge("a" * 129) { 1 } } => /gauge "a+" is not a valid name; .*at most 128/,
      -> { @config.gauge("a") } => /gauge "a" needs a block/,
      -> { @config.report("a/b") { |_| } } => %r{report "a/b" is not a valid name},
      -> { @config.report(:heap_dump) { |_| } } => /"heap_dump" is built in/,
      -> { @config.report(:puma) { |_| } } => /"puma" is built in/,
      -> { @config.report(:cache) } => /report "cache" needs a block/,
      -> { @config.label("Git SHA", "1") } => /label "Git SHA" is not a valid name; use one like :git_sha/,
      -> { @config.label(:git_sha) } => /label "git_sha" needs a value or a block, for example: c.label\(:git_sha/,
      -> { @config.logger = Object.new } => /logger Object has no methods info and warn/,
      -> { @config.backoff = 0 } => /backoff 0 is not a duration; use a number of seconds above 0, like 10.0/,
      -> { @config.acquire_timeout = "10s" } => /acquire_timeout "10s" is not a duration/,
      -> { @config.put_timeout = Float::NAN } => /put_timeout NaN is not a duration/
    }.each do |declare, message|
      assert_match message, assert_raises(ArgumentError, &declare).message
    end
  end

  def test_a_declaration_replaces_the_one_of_the_same_name
    @config.report(:cache) { |_| 1 }
    @config.report("cache") { |_| 2 }
    assert_equal 2, @config.reports.fetch("cache").call(nil)
    assert_equal 1, @config.reports.size
  end
end
