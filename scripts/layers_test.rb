# frozen_string_literal: true

# ruby scripts/layers_test.rb: the check of the layers finds what it should, and nothing else.
require "fileutils"
require "minitest/autorun"
require "open3"
require "tmpdir"

class LayersTest < Minitest::Test
  def setup
    @dir = Dir.mktmpdir
    write("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nresolver = \"3\"\n")
    crate("low")
    crate("high", uses: ["low"])
    layers
  end

  def teardown
    FileUtils.rm_rf(@dir)
  end

  def test_crates_and_modules_that_point_one_way_pass
    write("crates/high/src/a.rs", "use crate::b::B;\n")
    write("crates/high/src/b.rs", "use low::c::C;\nuse std::fs;\n")
    assert_equal ["", true], check
  end

  def test_a_crate_that_uses_one_above_it_fails
    crate("low", uses: ["high"])
    assert_equal ["layers: crate low must not use high\n", false], check
  end

  def test_a_crate_that_nobody_has_given_a_place_fails
    crate("new")
    assert_equal ["layers: scripts/layers.yml does not list the crate new\n", false], check
  end

  def test_a_circle_fails_and_names_each_import_in_it_with_its_line
    write("crates/high/src/a.rs", "use std::{fs, io};\n\nuse crate::{\n    b::{self, B},\n    free as other,\n};\n")
    write("crates/high/src/b/mod.rs", "mod inner;\n")
    write("crates/high/src/b/inner.rs", "fn f() -> u32 {\n    super::super::c::number()\n}\n")
    write("crates/high/src/c.rs", "fn f(x: crate::a::A) {}\n")
    write("crates/high/src/free.rs", "use crate::c;\n")
    text, passed = check
    refute passed
    assert_equal [
      "layers: crates/high/src/a.rs:3: high::a -> high::b is part of a circle",
      "layers: crates/high/src/a.rs:3: high::a -> high::free is part of a circle",
      "layers: crates/high/src/b/inner.rs:2: high::b -> high::c is part of a circle",
      "layers: crates/high/src/c.rs:1: high::c -> high::a is part of a circle",
      "layers: crates/high/src/free.rs:1: high::free -> high::c is part of a circle"
    ], text.lines(chomp: true).sort
  end

  def test_siblings_inside_a_module_are_compared_too
    write("crates/high/src/a/mod.rs", "mod x;\nmod y;\nuse x::X;\n")
    write("crates/high/src/a/x.rs", "use super::A;\nuse super::y::Y;\n")
    write("crates/high/src/a/y.rs", "use crate::a::x;\n")
    assert_equal [
      "layers: crates/high/src/a/x.rs:2: high::a::x -> high::a::y is part of a circle",
      "layers: crates/high/src/a/y.rs:1: high::a::y -> high::a::x is part of a circle"
    ], check.first.lines(chomp: true).sort
  end

  def test_tests_comments_and_strings_import_nothing
    write("crates/high/src/a.rs", "use crate::b;\n")
    write("crates/high/src/b.rs", <<~RUST)
      // use crate::a;
      /* crate::a::A */
      const TEXT: &str = "crate::a::A";
      const RAW: &str = r#"use "crate::a";"#;
      const QUOTE: char = '"';

      #[cfg(test)]
      use crate::a;

      impl B {
          #[cfg(test)]
          fn only(
              a: crate::a::A,
          ) {
              if true {}
          }
      }

      #[cfg(test)]
      mod tests {
          use crate::a::A;
      }

      #[cfg(any(test, fuzzing))]
      pub mod testing;
    RUST
    write("crates/high/src/b/testing.rs", "use crate::a::A;\n")
    assert_equal ["", true], check
    File.open(File.join(@dir, "crates/high/src/b.rs"), "a") { |file| file.puts "fn f(a: crate::a::A) {}" }
    refute check.last, "an import after the tests counts"
  end

  def test_a_listed_circle_passes_and_the_list_only_shrinks
    write("crates/high/src/a.rs", "use crate::b;\n")
    write("crates/high/src/b.rs", "use crate::a;\n")
    layers("high::a -> high::b", "high::b -> high::a")
    assert_equal ["", true], check
    write("crates/high/src/c.rs", "use crate::a;\n")
    write("crates/high/src/b.rs", "use crate::c;\n")
    text, passed = check("--shrink")
    refute passed, "a new circle is not taken into the list"
    refute_includes text, "no longer"
    assert_includes text, "high::b -> high::c"
    write("crates/high/src/b.rs", "")
    assert_equal ["layers: scripts/layers.yml: high::a -> high::b is no longer part of a circle: run scripts/layers --shrink\n", false], check
    assert_equal ["", true], check("--shrink")
    refute_includes File.read(File.join(@dir, "scripts/layers.yml")), "->"
  end

  private

  def write(path, text)
    path = File.join(@dir, path)
    FileUtils.mkdir_p(File.dirname(path))
    File.write(path, text)
  end

  def crate(name, uses: [])
    dependencies = uses.map { |used| "#{used} = { path = \"../#{used}\" }\n" }.join
    write("crates/#{name}/Cargo.toml", "[package]\nname = \"#{name}\"\nversion = \"0.1.0\"\n[dependencies]\n#{dependencies}")
    write("crates/#{name}/src/lib.rs", "")
  end

  def layers(*circles)
    write("scripts/layers.yml", "crates:\n  low: []\n  high: [low]\ncircles:\n#{circles.map { |circle| "  - #{circle}\n" }.join}")
  end

  def check(*arguments)
    out, status = Open3.capture2e(RbConfig.ruby, File.join(__dir__, "layers"), *arguments, @dir)
    [out, status.success?]
  end
end
