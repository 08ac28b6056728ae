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

  def test_jemalloc_says_who_allocated_what_is_in_use
    out, = ruby(JEMALLOC_PROFILE, env: { "LD_PRELOAD" => "libjemalloc.so.2", "MALLOC_CONF" => "prof:true,lg_prof_sample:12" })
    assert_match(/\Aheap_v2\/4096$/, out)
    # It is a sample: not all of the ten megabytes are in it.
    assert_operator out[/^ +t\*: \d+: (\d+)/, 1].to_i, :>, 1_000_000, "bytes in use"
    assert_match(/^MAPPED_LIBRARIES:/, out)
  end

  def test_what_jemalloc_lacks_for_a_profile_is_named
    out, = ruby(JEMALLOC_PROFILE, env: { "LD_PRELOAD" => "libjemalloc.so.2" })
    assert_match(/profiling is off in this process \(hint: start the process with MALLOC_CONF=prof:true/, out)
    out, = ruby(JEMALLOC_PROFILE)
    assert_match(/jemalloc is not loaded in this process/, out)
  end
end
