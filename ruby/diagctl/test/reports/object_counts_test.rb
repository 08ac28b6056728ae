# frozen_string_literal: true

require_relative "../reporting"

class ObjectCountsTest < Minitest::Test
  include Reporting

  def test_classes_that_override_their_own_methods_are_counted
    liar = Class.new(BasicObject) { def class = ::Kernel.raise("no") }
    Class.new { def self.name = raise("no") }.then { |type| @kept = [liar.new, type.new] }
    rows = JSON.parse(report("object_counts"))["classes"]
    assert_operator rows.sum { |row| row["count"] }, :>, 1000
    assert(rows.any? { |row| row["class"] == "#<anonymous Class>" })
    assert_equal rows, rows.sort_by { |row| [-row["memsize"], row["class"]] }
  end

  def test_objects_count_under_their_real_class_without_calling_their_methods
    base = Class.new(BasicObject) { %i[method_missing ! ==].each { |name| define_method(name) { |*| ::Kernel.raise("asked") } } }
    plain = Class.new { %i[class singleton_class is_a? hash].each { |name| define_method(name) { |*| raise "asked" } } }
    Diagctl.const_set(:TestBare, base)
    Diagctl.const_set(:TestPlain, plain)
    @kept = Array.new(3) { base.new } + Array.new(4) { plain.new } + Array.new(5) { plain.new.tap { |one| def one.own = 1 } } +
      Array.new(6) { plain.new.extend(Comparable) }
    rows = JSON.parse(report("object_counts"))["classes"]
    count = rows.to_h { |row| row.values_at("class", "count") }
    assert_equal [3, 15], count.values_at("Diagctl::TestBare", "Diagctl::TestPlain")
    assert_operator count["Class"], :>, 100, "each has a singleton class of its own"
    refute(rows.any? { |row| row["class"].start_with?("#<Class:") })
    assert_equal rows.map { |row| row["class"] }.grep_v("#<anonymous Class>").tally.values.uniq, [1]
  ensure
    %i[TestBare TestPlain].each { |name| Diagctl.send(:remove_const, name) }
  end

  # Otherwise a later heap dump of the same dumper would be full of them.
  def test_counting_allocates_almost_nothing_per_object
    @kept = Array.new(100_000) { Object.new }
    before = GC.stat(:total_allocated_objects)
    report("object_counts")
    assert_operator GC.stat(:total_allocated_objects) - before, :<, 30_000
  end

  def test_wrappers_of_internal_vm_objects_are_accepted
    @kept = ObjectSpace.reachable_objects_from(Class.new { def a = 1 }).grep(ObjectSpace::InternalObjectWrapper)
    refute_empty @kept
    refute_empty report("object_counts")
  end
end
