# frozen_string_literal: true

require_relative "../helper"
require "diagctl/rails/release"

class ReleaseTest < Minitest::Test
  include Sandbox

  SHA = "4f0c1d2e" * 5

  def test_the_environment_comes_before_a_file_and_a_file_before_the_checkout
    git("HEAD" => "ref: refs/heads/main\n", "refs/heads/main" => "#{SHA}\n")
    assert_equal SHA, of({})
    File.write(File.join(@dir, "REVISION"), "20261128-1\nmore\n")
    assert_equal "20261128-1", of({})
    assert_equal "v7", of("KAMAL_VERSION" => "v7", "GIT_SHA" => " ")
    assert_equal "abc", of("KAMAL_VERSION" => "v7", "GIT_SHA" => "abc")
  end

  def test_a_detached_head_is_a_commit_and_anything_else_is_none
    git("HEAD" => "#{SHA}\n")
    assert_equal SHA, of({})
    git("HEAD" => "ref: refs/heads/packed\n")
    assert_nil of({})
    git("HEAD" => "\xFF\xFE garbage")
    assert_nil of({})
    FileUtils.rm_rf(File.join(@dir, ".git"))
    assert_nil of({})
    # A worktree has a file there.
    File.write(File.join(@dir, ".git"), "gitdir: /elsewhere\n")
    assert_nil of({})
  end

  def test_without_rails_no_railtie_is_loaded
    out, status = Open3.capture2e(RbConfig.ruby, "-I", LIB, "-rdiagctl", "-e", "p defined?(Diagctl::Railtie), defined?(Rails)")
    assert_equal ["nil\nnil\n", true], [out, status.success?]
  end

  private

  def of(env) = Diagctl::Release.of(@dir, env: env)

  def git(files)
    files.each do |name, text|
      path = File.join(@dir, ".git", name)
      FileUtils.mkdir_p(File.dirname(path))
      File.write(path, text)
    end
  end
end
