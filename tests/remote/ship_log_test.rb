# frozen_string_literal: true

require "time"
require_relative "support/directory_case"

module E2E
  # `ship --json`: a log for programs.
  class ShipLogTest < DirectoryCase
    def test_each_line_is_an_object_that_says_what_when_and_how_bad
      good, bad = capture(name: "good"), capture(name: "bad")
      File.write(File.join(@store, "reports", bad, "bad.bin.gz"), "x", 100)
      result = ship("--json")
      assert_equal [5, ""], [result.status, result.err]
      lines = result.out.lines.map { |line| JSON.parse(line) }
      lines.each { |line| assert_in_delta Time.now, Time.iso8601(line.fetch("at")), 600 }
      shipped = lines.find { |line| line["event"] == "shipped" }
      assert_equal ["info", good, 2], shipped.values_at("level", "id", "files")
      assert_operator shipped["bytes"], :>=, 1000
      assert_includes shipped["message"], good
      errors = lines.select { |line| line["level"] == "error" }
      assert_match(/capture #{bad} is damaged/, errors.first["message"])
      assert_equal "warn", lines.last["level"]
      status = diagctl!("status", "--json").json.fetch("shipped")
      assert_match(/is damaged/, status["failure"])

      Dir.mkdir("#{@files}.aside")
      File.rename(@files, "#{@files}.aside/files")
      capture
      failed = ship("--json")
      assert_equal [1, ""], [failed.status, failed.err]
      assert(failed.out.lines.map { |line| JSON.parse(line) }.any? { |line| line["hint"].to_s.include?("must exist") }, failed)
    end
  end
end
