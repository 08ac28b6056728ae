# frozen_string_literal: true

require "shellwords"
require_relative "support/e2e"

# The commands and configurations of docs/incidents work as written, on a store with a Puma.
class DocumentationTest < E2E::Case
  PAGES = Dir[File.join(E2E::ROOT, "docs/incidents/*.md")].sort.freeze

  def test_every_configuration_is_valid_and_without_a_warning
    blocks = PAGES.flat_map { |page| blocks(page, "toml").map { |text| [page, text] } }
    assert_operator blocks.size, :>=, 3
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

  private

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
