# frozen_string_literal: true

require_relative "../e2e/support/e2e"

# Ruby 4.0 is available only as WebAssembly, which cannot fork. It writes heap dumps to files, which are then put as a dumper
# would.
class Ruby40Test < E2E::Case
  def test_heap_dumps_are_whole_and_a_damaged_one_is_found
    dumps = File.join(@root, "dumps")
    Dir.mkdir(dumps)
    made = E2E::Command.run("#{__dir__}/ruby40", "dumps.rb", "/out=#{dumps}", "/tmp=#{@root}/tmp", env: env, deadline: 300)
    assert made.ok?, made
    written = Dir.glob("#{dumps}/*.json").sort
    assert_equal %w[full plain], written.map { |path| File.basename(path, ".json") }
    written.each do |path|
      data = File.binread(path)
      assert_operator data.lines.size, :>, 20_000
      assert_nil error_of(data), path
      damaged(data).each { |what, copy| assert_match(/of the heap dump is damaged/, error_of(copy), "#{what} of #{path}") }
    end
  end

  private

  # Puts a heap dump and returns the error that the capture records for it.
  def error_of(data)
    dumper = granted("heap_dump")
    result = dumper.put("heap_dump", data)
    assert result.ok?, result
    result = dumper.finalize
    dumper.close
    result.json.fetch("reports").first["error"]
  end

  # Damages a dump as Ruby 3.4 does: it ends early, or bytes are missing in the middle, which here cuts an address short.
  def damaged(data)
    lines = data.lines
    line = lines.size / 2
    head = lines.first(line).join + lines[line][0, 20]
    { "a copy without its end" => head, "a copy with a hole" => head + "}\n" + lines.drop(line + 50).join }
  end
end
