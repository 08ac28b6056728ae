# frozen_string_literal: true

require_relative "../helper"

class BinaryTest < Minitest::Test
  include Sandbox

  def test_it_looks_in_the_override_the_gem_and_path_in_that_order
    one = binary("true")
    two = File.join(@dir, "own")
    FileUtils.cp(one, two)
    find = ->(env, own = "/nonexistent") { Diagctl::Binary.new(env: env, own: own).path }
    assert_equal two, find.call({ "DIAGCTL_BIN" => two, "PATH" => @dir })
    assert_equal two, find.call({ "PATH" => @dir }, two)
    assert_equal one, find.call({ "PATH" => "/nonexistent:#{@dir}" })
    assert_nil find.call({ "PATH" => "/nonexistent" })
  end

  # `ENV PATH=~/bin:$PATH` in a Dockerfile is taken literally, and there may be no home directory.
  def test_a_tilde_in_path_is_not_expanded_and_does_not_end_the_search
    one = binary("true")
    assert_equal one, Diagctl::Binary.new(env: { "PATH" => "~nobody-of-that-name/bin:~/bin:#{@dir}" }, own: "/x").path
  end

  def test_a_wrong_override_is_named_and_not_replaced
    found = Diagctl::Binary.new(env: { "DIAGCTL_BIN" => "#{@dir}/nope", "PATH" => @dir.tap { binary("true") } }, own: "/x")
    assert_nil found.path
    assert_match(%r{DIAGCTL_BIN=.*/nope is not an executable file.*hint}, found.warning)
  end
end
