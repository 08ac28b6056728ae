# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"

module E2E
  # `verify` ends as `diagctl help exit-codes` has it, here and with --remote.
  class VerifyStatusesTest < DirectoryCase
    include Reading

    DAMAGE = {
      "a changed report" => [1, ->(dir) { File.write(report(dir), "x" * File.size(report(dir))) }],
      "a longer report" => [1, ->(dir) { File.write(report(dir), "x", mode: "a") }],
      "a missing report" => [1, ->(dir) { File.unlink(report(dir)) }],
      "a cut record" => [1, ->(dir) { File.truncate(record(dir), 100) }],
      "an empty record" => [1, ->(dir) { File.truncate(record(dir), 0) }],
      "no record" => [1, ->(dir) { File.unlink(record(dir)) }],
      "the record of a newer diagctl" => [6, ->(dir) { File.write(record(dir), JSON.dump(JSON.parse(File.read(record(dir))).except("check").merge("schema" => 99))) }],
    }.freeze

    def self.record(dir) = File.join(dir, "meta.json")

    def self.report(dir) = Dir[File.join(dir, "blob*")].first

    DAMAGE.each do |what, (status, damage)|
      define_method("test_#{what.tr(" ", "_")}_ends_with_#{status}_in_the_store_and_in_the_remote") do
        capture
        id = capture
        ship!
        [File.join(@store, "reports", id), *Dir[File.join(@files, "captures/*/*", id)]].each { |dir| damage.call(dir) }
        [["latest"], [id], ["--all"], [id, "--json"]].each do |words|
          results = [diagctl("verify", *words), read("verify", *words)]
          assert_equal [status, status], results.map(&:status), [words, results.map(&:to_s)]
          results.each { |result| assert_includes result.out, id, words }
        end
      end
    end

    def test_what_is_whole_ends_with_0_and_what_is_not_there_with_4
      id = capture
      ship!
      { [id] => 0, ["--all"] => 0, ["latest"] => 0, ["2001"] => 4, [id, "2001"] => 4 }.each do |words, status|
        assert_equal [status, status], [diagctl("verify", *words), read("verify", *words)].map(&:status), words
      end
    end

    def test_the_help_says_so
      codes = diagctl!("help", "exit-codes").out
      assert_match(/^ +1 .*`verify` found damage/, codes)
      refute_match(/^ +5 .*verify/, codes)
      assert_includes diagctl!("verify", "--help").out, "1: something is damaged"
    end
  end
end
