# frozen_string_literal: true

require_relative "../helper"

class JemallocProfileTest < Minitest::Test
  include Sandbox

  JEMALLOC_PROFILE = <<~RUBY
    Diagctl::Runtime.load
    KEPT = Array.new(100) { "x" * 100_000 }
    io = StringIO.new
    2.times do
      io.truncate(io.rewind)
      Diagctl::Reports::JemallocProfile.new.call(io, {})
    rescue Diagctl::Unavailable
      abort $!.message
    end
    puts io.string
  RUBY

  def test_it_shows_the_allocation_stacks_of_memory_in_use
    out, = ruby(JEMALLOC_PROFILE, env: { "LD_PRELOAD" => "libjemalloc.so.2", "MALLOC_CONF" => "prof:true,lg_prof_sample:12" })
    assert_match(/\Aheap_v2\/4096$/, out)
    # The profile is a sample, so it does not contain all of the ten megabytes.
    assert_operator out[/^ +t\*: \d+: (\d+)/, 1].to_i, :>, 1_000_000, "bytes in use"
    assert_match(/^MAPPED_LIBRARIES:/, out)
  end

  def test_without_profiling_or_jemalloc_it_says_why
    out, = ruby(JEMALLOC_PROFILE, env: { "LD_PRELOAD" => "libjemalloc.so.2" })
    assert_match(/profiling is off in this process \(hint: start the process with MALLOC_CONF=prof:true/, out)
    out, = ruby(JEMALLOC_PROFILE)
    assert_match(/jemalloc is not loaded in this process/, out)
  end
end
