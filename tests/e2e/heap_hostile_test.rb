# frozen_string_literal: true

require_relative "support/e2e"

# Dumps that somebody made to do harm, or that a broken disk made, cost bounded memory and stack, and get a clear answer.
class HeapHostileTest < E2E::Case
  # Address space: the program itself, its buffers, and room for the objects.
  MOST = 96 << 20
  LONG = 1 << 28
  DEEP = 200_000
  QUESTIONS = [%w[top], %w[top --by type], %w[retained], %w[path - 0x7f0000001000], %w[object - 0x7f0000001000], %w[strings], %w[waste],
               *%w[json heapsnapshot pprof folded svg].map { |format| ["export", "-", "--format", format] }].freeze

  def test_a_line_of_any_length_is_read_in_pieces
    { "" => 5, '"value":"' => 0 }.each do |before, status|
      result = pipe("printf '{\"address\":\"0x7f0000000018\", \"type\":\"STRING\", #{before}'; head -c #{LONG} /dev/zero | tr '\\0' a; " \
                    "printf '\"}\\n{\"address\":\"0x7f0000000040\", \"type\":\"STRING\", \"memsize\":40}\\n'", %w[top])
      assert_equal status, result.status, result
      assert_match(/line 1 .* of the heap dump is damaged/, result.err) unless status.zero?
      assert_match(/^ *#{status.zero? ? 2 : 1} .*STRING/, result.out)
    end
  end

  # Each refers to the next, and to the first: a list of 200,000 within a circle.
  def test_what_is_no_dump_and_never_ends_is_refused_at_once
    %w[json heapsnapshot svg].each do |format|
      result = diagctl("heap", "export", "/dev/zero", "--format", format, deadline: 30)
      assert_equal 1, result.status, result
      assert_match(%r{/dev/zero.* cannot be analysed: it is neither a heap graph nor}, result.err)
    end
  end

  def test_a_deep_list_in_a_circle_takes_no_stack
    write { |out| DEEP.times { |i| object(out, i, [(i + 1) % DEEP, 0]) } }
    QUESTIONS.each do |question|
      result = ask(question)
      assert result.ok?, result
    end
    retained = JSON.parse(ask(%w[retained - -n 2 --json]).out).fetch("retained")
    assert_equal [DEEP, DEEP - 1], retained.map { |row| row["objects"] }
  end

  # Objects far apart, references to nothing, sizes that no memory has, two objects at one address.
  def test_false_addresses_and_sizes_are_counted_and_harm_nothing
    write do |out|
      50_000.times { |i| out.puts(%({"address":"0x#{(i * 0x1_0000_0000 + 0x1000).to_s(16)}", "type":"ARRAY", "references":["0x1000", "0x1008"], "memsize":#{2**63}})) }
      2.times { object(out, 0, [1]) }
    end
    QUESTIONS.each do |question|
      result = ask(question)
      assert_includes [0, 1, 4, 5], result.status, result
      refute_match(/panic|overflow|memory allocation/, result.err)
    end
    assert_match(/at the address of another/, ask(%w[top]).err)
  end

  private

  def write
    File.open(File.join(@root, "dump.json"), "w") do |out|
      out.puts('{"type":"ROOT", "root":"vm", "references":["0x7f0000001000"]}')
      yield out
    end
  end

  def object(out, number, references)
    to = references.map { |other| "\"#{address(other)}\"" }.join(", ")
    out.puts(%({"address":"#{address(number)}", "type":"ARRAY", "length":2, "references":[#{to}], "memsize":40}))
  end

  def address(number) = format("0x%x", 0x7f0000001000 + number * 40)

  def ask(question) = pipe("cat dump.json", question)

  # `question` without the name of the dump means stdin.
  def pipe(producer, question)
    question = question.include?("-") ? question : [*question.first(1), "-", *question.drop(1)]
    command = ["prlimit", "--as=#{MOST}", "--stack=#{1 << 20}", E2E::BIN, "heap", *question]
    E2E::Command.run("sh", "-c", "(#{producer}) | \"$@\"", "sh", *command, env: env, chdir: @root, deadline: 120)
  end
end
