# frozen_string_literal: true

require_relative "support/e2e"

# Every question of `diagctl heap` about the dump of a real process, by the heap walker, as it is stored.
class HeapCommandsTest < E2E::Case
  SESSIONS = 300
  PROGRAM = <<~RUBY.tr("\n", ";")
    module Shop; class Session; def initialize(user); @user = user; end; end; CACHE = []; end
    #{SESSIONS}.times { |i| Shop::CACHE << Shop::Session.new("user " + (i % 3).to_s) }
    module Shop; TEXT = "x" * 200_000; COPIES = [TEXT.dup, TEXT.dup]; end
    GC.start
  RUBY

  def setup
    super
    @script = start_script
    @script.run(PROGRAM)
    # It has executed the program when it executes what comes after it.
    @script.run("File.write(#{File.join(@root, "ready").inspect}, '')")
    wait_until("the program") { File.exist?(File.join(@root, "ready")) }
    @id = capture
  end

  def test_every_question_about_a_stored_graph_has_an_answer_as_text_and_as_json
    graph = heap("top", "-n", "10000")
    assert_equal ["walker", true, RUBY_VERSION], graph.values_at("producer", "complete", "ruby")
    session = graph["groups"].find { |group| group["name"] == "Shop::Session" }
    assert_equal SESSIONS, session["count"]
    %w[type site generation].each { |by| refute_empty heap("top", "--by", by)["groups"], by }
    assert_equal "STRING", heap("top", "--by", "type", "--sort", "count")["groups"].first["name"]

    refute_empty heap("retained").fetch("retained")
    paths = heap("path", "Shop::Session").fetch("paths")
    assert_equal [SESSIONS, "Shop::CACHE → Array[] → Shop::Session"], paths.first.values_at("objects", "path")
    address = address_of_a_session
    object = heap("object", address)
    assert_equal "Shop::Session", object["class"]
    assert_includes JSON.generate(object), "@user"
    equal = heap("strings", "-n", "1000").fetch("equal")
    assert_operator equal.map { |string| string.fetch("count") }.max, :>=, SESSIONS / 3
    assert_operator heap("waste").fetch("slot_sizes").sum { |slots| slots.fetch("live") }, :>, SESSIONS
  end

  def test_copies_that_share_a_buffer_waste_their_slots_and_are_named
    group = heap("strings", "-n", "1000").fetch("equal").find { |equal| equal["length"] == 200_000 }
    # The constant and its copies, and not the string that Ruby made to own the bytes.
    assert_equal 3, group["count"]
    assert_operator group["wasted"], :<, 1000
    hashes = group.fetch("examples").map { |address| heap("object", address).fetch("hash") }
    assert_equal [group["hash"]] * 3, hashes
  end

  def test_of_a_constant_the_address_of_its_object_is_told
    %w[CACHE Shop::CACHE].each do |name|
      command = diagctl("heap", "path", @id, name).err[/hint: .*`(diagctl heap object .*)`/, 1]
      address = command.split.last
      assert_equal "ARRAY", heap("object", address)["type"], name
    end
    assert_match(/did you mean Shop::Session\?/, diagctl("heap", "path", @id, "Session").err)
  end

  def test_what_grew_between_two_captures_of_a_process_is_found
    @script.run("50.times { Shop::CACHE << Shop::Session.new('new') }")
    second = capture
    difference = diagctl!("heap", "diff", @id, second, "-n", "1000", "--json").json
    assert difference["one_process"]
    grown = difference["classes"].find { |row| row["name"] == "Shop::Session" }
    assert_equal 50, grown["objects"]
    refute_match(/one process|taken after/, diagctl!("heap", "diff", @id, second).err)
    assert_match(/#{second} was taken after #{@id}:/, diagctl!("heap", "diff", second, @id).err)
  end

  def test_exports_are_what_their_readers_expect_and_hold_no_value
    exports = %w[json heapsnapshot pprof folded svg].to_h { |format| [format, export(format)] }
    exports["json"].each_line { |line| JSON.parse(line) }
    assert_equal 1, JSON.parse(exports["heapsnapshot"]).dig("snapshot", "meta", "node_fields").count("self_size")
    assert_equal "\x1f\x8b".b, exports["pprof"].byteslice(0, 2).b
    assert_match(/^root;.* \d+$/, exports["folded"])
    assert_includes exports["svg"], "</svg>"
    exports.each { |format, content| refute_includes content.b, "user 1", format }
  end

  private

  def capture
    diagctl!("request", "heap_dump", "--reason", "a test", "--wait", deadline: 90)
    captures.first.fetch("id")
  end

  # The answer in JSON. The same question as text is answered, too.
  def heap(command, *arguments)
    refute_empty diagctl!("heap", command, @id, *arguments).out, command
    diagctl!("heap", command, @id, *arguments, "--json").json
  end

  def address_of_a_session
    line = export("json").each_line.map { |json| JSON.parse(json) }
    session = line.find { |object| object["name"] == "Shop::Session" && object["type"] == "CLASS" }
    line.find { |object| object["class"] == session["address"] && object["type"] == "OBJECT" }.fetch("address")
  end

  def export(format)
    path = File.join(@root, "export.#{format}")
    diagctl!("heap", "export", @id, "--format", format, "-o", path)
    File.binread(path)
  end
end
