# frozen_string_literal: true

require_relative "../reporting"

class GcStatTest < Minitest::Test
  include Reporting

  def test_it_is_json_with_rubys_counters
    data = JSON.parse(report("gc_stat"))
    assert_operator data["count"], :>=, 0
    assert_operator data["stat"]["heap_live_slots"], :>, 0
  end

  # Visiting a large heap takes tens of milliseconds, in which no other thread runs.
  def test_it_does_not_visit_the_heap
    replacing(ObjectSpace, :count_objects, -> { flunk }) { report("gc_stat") }
  end

  # `diagnose` computes bytes from the counts.
  def test_pages_have_a_size
    data = JSON.parse(report("gc_stat"))
    assert_includes [16_384, 65_536], data.dig("constants", "HEAP_PAGE_SIZE")
  end
end
