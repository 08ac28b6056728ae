# frozen_string_literal: true

require_relative "../helper"

class BinaryTest < Minitest::Test
  include Sandbox

  def test_it_looks_in_the_override_the_gem_and_path_in_that_order
    one = binary("true")
    two = of_gem(one)
    assert_equal two, find("DIAGCTL_BIN" => two, "PATH" => @dir).path
    assert_equal two, find("PATH" => @dir).path
    FileUtils.rm(two)
    assert_equal one, find("PATH" => "/nonexistent:#{@dir}").path
    assert_nil find("PATH" => "/nonexistent").path
  end

  # `ENV PATH=~/bin:$PATH` in a Dockerfile is taken literally, and there may be no home directory.
  def test_a_tilde_in_path_is_not_expanded_and_does_not_end_the_search
    one = binary("true")
    assert_equal one, find("PATH" => "~nobody-of-that-name/bin:~/bin:#{@dir}").path
  end

  def test_a_wrong_override_is_named_and_not_replaced
    found = find("DIAGCTL_BIN" => "#{@dir}/nope", "PATH" => @dir.tap { binary("true") })
    assert_nil found.path
    assert_match(%r{DIAGCTL_BIN=.*/nope is not an executable file.*hint}, found.warning)
  end

  # They would start Ruby at each poll, and find themselves.
  def test_the_ruby_scripts_that_rubygems_and_bundler_write_are_passed_over
    scripts = ["#!/usr/bin/env ruby\nGem.use_gemdeps", "#!/usr/bin/ruby3.1\n#",
               "#!/bin/sh\n# -*- ruby -*-\n_=_\\\n=begin\nbindir=\"${0%/*}\"\nexec \"$bindir/ruby\" \"-x\" \"$0\" \"$@\"\n=end"]
    dirs = scripts.map.with_index do |text, number|
      File.join(@dir, number.to_s).tap do |dir|
        FileUtils.mkdir_p(dir)
        File.write(File.join(dir, "diagctl"), text, perm: 0o755)
      end
    end
    assert_nil find("PATH" => dirs.join(":")).path
    one = binary("true")
    assert_equal one, find("PATH" => [*dirs, @dir].join(":")).path
  end

  def test_a_gem_without_the_program_says_how_to_get_the_one_that_has_it
    assert_match(/gem is the one without the program, and the program is not in PATH.*--add-platform x86_64-linux.*DIAGCTL_BIN/,
      find("PATH" => "/nonexistent").warning)
  end

  def test_a_cpu_that_no_gem_is_for_is_named
    assert_match(/no gem has the diagctl program for riscv64-linux, and it is not in PATH.*build it/, find("PATH" => "", cpu: "riscv64").warning)
  end

  def test_a_program_of_the_gem_that_cannot_run_says_why
    # Ruby for WebAssembly is no file that could run.
    skip "this Ruby is not a program" unless File.executable?(RbConfig.ruby)

    file = of_gem(RbConfig.ruby)
    File.chmod(0o644, file)
    assert_match(%r{#{file}, is not executable, and there is none in PATH.*gem pristine diagctl}, find("PATH" => "").warning)
    File.chmod(0o755, file)
    assert_equal file, find("PATH" => "").path

    other = File.binread(file, 4096).tap { |head| head[18, 2] = [21].pack("S<") }
    File.binwrite(file, other)
    assert_match(%r{#{file}, is for 21, not for \w+, and there is none in PATH.*add-platform}, find("PATH" => "").warning)
    one = binary("true")
    assert_equal one, find("PATH" => @dir).path
  end

  private

  # Strings as keys are keyword arguments, too.
  def find(cpu: "x86_64", **env)
    Diagctl::Binary.new(env: env, exe: File.join(@dir, "exe"), cpu: cpu)
  end

  def of_gem(program)
    path = File.join(@dir, "exe/x86_64-linux/diagctl")
    FileUtils.mkdir_p(File.dirname(path))
    FileUtils.cp(program, path)
    path
  end
end
