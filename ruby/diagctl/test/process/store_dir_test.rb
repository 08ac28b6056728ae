# frozen_string_literal: true

require_relative "../helper"

class StoreDirTest < Minitest::Test
  include Sandbox

  def test_the_environment_comes_first_and_the_directory_is_created_private
    dir = File.join(@dir, "new")
    assert_equal dir, Diagctl::StoreDir.resolve("/nonexistent", env: { "DIAGCTL_DIR" => dir })
    assert_equal 0o700, File.stat(dir).mode & 0o777
  end

  def test_without_the_environment_the_program_is_asked
    path = File.join(@dir, "diagctl")
    File.write(path, %(#!/bin/sh\n[ "$*" = "config show --json" ] && echo '{"values":{"dir":{"value":"#{@store}","source":"file"}}}'))
    File.chmod(0o755, path)
    assert_equal @store, Diagctl::StoreDir.resolve(path, env: {})
  end

  def test_every_failure_is_a_problem_with_a_hint
    quiet = ->(body) { File.join(@dir, "diagctl").tap { |path| File.write(path, "#!/bin/sh\n#{body}") && File.chmod(0o755, path) } }
    {
      [{ "DIAGCTL_DIR" => File.join(@dir, "a", "b") }, "true"] => /cannot be created: No such file.*hint/,
      # The program does not expand `~` either, and both must find the same store.
      [{ "DIAGCTL_DIR" => "~nobody-of-that-name/store" }, "true"] => %r{the store #{Dir.pwd}/~nobody-of-that-name/store cannot be created},
      [{}, "echo 'no such key' >&2; exit 3"] => /`diagctl config show --json` ended with status 3: no such key/,
      [{}, "echo hello"] => /did not print the expected JSON/,
      [{}, "echo '[]'"] => /did not print the expected JSON/,
      [{}, %q(echo '{"values":{}}')] => /does not name a directory/
    }.each do |(env, body), message|
      error = assert_raises(Diagctl::Problem, body) { Diagctl::StoreDir.resolve(quiet.call(body), env: env) }
      assert_match message, error.message
    end
  end
end
