# frozen_string_literal: true

require_relative "../reporting"

class HeapSummaryTest < Minitest::Test
  include Reporting

  Answering = Struct.new(:modes, :answer) { def walk(_io, mode) = modes.push(mode) && answer }

  def test_the_walker_writes_the_objects_without_their_references
    walker = Answering.new([], true)
    io = StringIO.new
    Diagctl::Reports::HeapSummary.new.call(io, {}, walker)
    assert_equal [[Diagctl::Walker::OBJECTS], ""], [walker.modes, io.string]
  end

  def test_without_a_walker_every_object_is_written_for_put_to_count
    [nil, Answering.new([], false)].each do |walker|
      file = Tempfile.create("heap")
      Diagctl::Reports::HeapSummary.new.call(file, {}, walker)
      file.rewind
      assert_operator file.each_line.count, :>, 1000
    ensure
      file.close
    end
    unused = Answering.new([], true)
    Diagctl::Reports::HeapSummary.new.call(File.open(File::NULL, "w"), { "producer" => "dump_all" }, unused)
    assert_empty unused.modes
  end
end
