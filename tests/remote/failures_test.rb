# frozen_string_literal: true

require "socket"
require_relative "support/directory_case"
require_relative "support/reading"

module E2E
  # A person, with a file of his own and no store, whose remote cannot be read. He gets one message, and a command to paste that works.
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
        assert_match(%r{\Adiagctl: cannot (list \w+|write probes/\S+) in s3://acme/prod at http://127.0.0.1:#{closed}: the server refuses the connection
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

    def test_a_command_that_a_hint_suggests_can_be_pasted
      id = store_capture("gc_stat" => "{}")
      ship!
      path = laptop(remote_section)
      [%w[show latest:nope], %w[show 2020], %w[fetch 2020], %w[diagnose], %w[request --cancel 2020], %w[gc]].each do |command|
        result = there(*command)
        refute result.ok?, result
        commands = result.err.scan(/`(diagctl [^`…]*)`/).flatten
        refute_empty commands, result
        commands.each do |line|
          assert_match(/\Adiagctl --config '#{path}' /, line, result)
          pasted = Command.run("sh", "-c", line.sub(/\Adiagctl/, BIN).gsub("HOST/ID", id), env: laptop_env)
          assert_includes [0, 4], pasted.status, "#{line}: #{pasted}"
          refute_match(/unexpected|no remote|no diagctl store/, pasted.err, line)
        end
      end
      shown = there("show", "latest").out[/fetch one with: (.*)/, 1]
      assert_equal "diagctl --config '#{path}' fetch #{id}:gc_stat --remote", shown
      assert_match(%r{`diagctl --config '#{path}' list --remote` reads file://#{@files}$}, Command.run(BIN, "--config", path, "list", env: laptop_env).err)
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
