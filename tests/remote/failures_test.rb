# frozen_string_literal: true

require "socket"
require_relative "support/directory_case"
require_relative "support/reading"

module E2E
  # A person, with a file of his own and no store, whose remote cannot be read. He gets one message.
  class FailuresTest < DirectoryCase
    include Reading

    READING = [%w[list], %w[show latest], %w[request --list], %w[request gc_stat --reason test], %w[request --cancel 2026], %w[rm latest],
               %w[gc --max-age 1d], %w[verify --all], %w[heap top latest], %w[fetch latest]].freeze

    def test_a_dead_endpoint_costs_one_message
      closed = TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }
      laptop("url = \"s3://acme/prod\"\nendpoint = \"http://127.0.0.1:#{closed}\"\nregion = \"x\"")
      READING.each do |command|
        result = there(*command)
        assert_equal 1, result.status, result
        assert_match(%r{\Adiagctl: cannot list \w+ in s3://acme/prod at http://127.0.0.1:#{closed}: the server refuses the connection
  hint: check remote.endpoint, and that the server runs.*\n\z}, result.err, command.join(" "))
        assert_equal 2, result.err.lines.size, result
        assert_empty result.out
      end
    end

    def test_a_directory_that_is_not_there_costs_one_message
      laptop("url = \"file://#{@files}/missing\"")
      READING.each do |command|
        result = there(*command)
        assert_equal 1, result.status, result
        assert_match(/\Adiagctl: cannot open \S+missing: No such file.*\n  hint: the directory of remote.url must exist.*\n\z/, result.err)
        assert_equal 2, result.err.lines.size, result
      end
    end

    private

    # A configuration that the environment does not name.
    def laptop(remote)
      @laptop = File.join(@root, "my laptop.toml")
      File.write(@laptop, "[remote]\n#{remote}\n")
      @laptop
    end

    def laptop_env
      elsewhere.merge("AWS_ACCESS_KEY_ID" => "a", "AWS_SECRET_ACCESS_KEY" => "b").except("DIAGCTL_CONFIG", "DIAGCTL_BIN")
    end

    def there(*command) = Command.run(BIN, "--config", @laptop, *command, "--remote", env: laptop_env)
  end
end
