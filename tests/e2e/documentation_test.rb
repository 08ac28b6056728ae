# frozen_string_literal: true

require "shellwords"
require_relative "support/e2e"

# The commands of docs/incidents work as written, on a store with a Puma. What the other pages name exists: commands with their options,
# configurations, Ruby.
class DocumentationTest < E2E::Case
  PAGES = Dir[File.join(E2E::ROOT, "docs/incidents/*.md")].sort.freeze
  ALL = Dir.glob(%w[*.md docs/**/*.md ruby/*/README.md], base: E2E::ROOT).grep_v(/\ACHANGELOG/).map { |page| File.join(E2E::ROOT, page) }.sort.freeze
  # Letters that stand for many: `heap top|retained`, `config check …`.
  PATTERN = /[|…\[\]{}<>*]|\.\.\./

  def test_every_configuration_is_valid_and_without_a_warning
    blocks = ALL.flat_map { |page| blocks(page, "toml").map { |text| [page, text] } }
    assert_operator blocks.size, :>=, 8
    blocks.each do |page, text|
      file = File.join(@root, "page.toml")
      File.write(file, text)
      checked = diagctl("config", "check", "--elsewhere", file)
      assert checked.ok?, "#{page}\n#{checked}"
    end
  end

  def test_every_command_succeeds
    server = puma(workers: 2)
    wait_until("both poll", tell: server.method(:log)) { Dir[File.join(@store, "samples", "*")].size >= 2 }
    pid = server.workers.first.to_s
    PAGES.each { |page| blocks(page, "sh").join.lines.map(&:strip).each { |line| run_line(page, line, pid) } }
  end

  # --help ends a command once its words are known to be right.
  def test_every_command_that_is_named_exists
    named = ALL.to_h { |page| [page, named_in(File.read(page))] }
    assert_operator named.values.sum(&:size), :>=, 100
    wrong = named.flat_map do |page, lines|
      lines.filter_map do |line|
        result = E2E::Command.run(E2E::BIN, *Shellwords.split(line), "--help", env: env)
        "#{page}: diagctl #{line}\n#{result.err}" unless result.ok?
      end
    end
    assert_empty wrong
    refute E2E::Command.run(E2E::BIN, "list", "--no-such-option", "--help", env: env).ok?
  end

  def test_every_piece_of_ruby_can_be_parsed
    pieces = ALL.flat_map { |page| blocks(page, "ruby").map { |text| [page, text] } }
    assert_operator pieces.size, :>=, 15
    pieces.each { |page, text| assert RubyVM::InstructionSequence.compile(text), page }
  end

  private

  # Commands in code spans and in blocks of a shell, without what the shell adds, and with 1 for PID.
  def named_in(text)
    lines = text.scan(/^```(?:sh|console)\n(.*?)^```/m).flatten.flat_map(&:lines)
    spans = text.gsub(/^ *```.*?^ *```/m, "").scan(/`([^`]+)`/).flatten
    (lines + spans).filter_map { |line| line.gsub(/\s+/, " ")[/\A(?:\$ |sudo |bundle exec )*diagctl ([a-z].*)/, 1] }
      .map { |line| line.sub(/(?<!\S)(?:[>|&#] ?|-- ).*/, "").gsub(/\bPID\b/, "1").strip }.reject { |line| line.match?(PATTERN) }.uniq
  end

  def blocks(page, language) = File.read(page).scan(/^```#{language}\n(.*?)^```/m).flatten

  # PID and ID stand for a process and a capture.
  def run_line(page, line, pid)
    assert_match(/\Adiagctl /, line, page)
    line = line.gsub(/\bPID\b/, pid).gsub(/\bID\b/) { oldest }
    result = E2E::Command.run("sh", "-c", line, env: env(PATH: "#{File.dirname(E2E::BIN)}:#{ENV.fetch("PATH")}"), chdir: @root, deadline: 120)
    assert result.ok?, "#{page}: #{line}\n#{result}"
  end

  def oldest = captures.select { |capture| capture["reports"].any? { |report| report["name"] == "heap_dump" } }.last.fetch("id")
end
