# frozen_string_literal: true

require "minitest/autorun"
require_relative "../benches/support/figures"

# The documentation names paths that exist, and links to pages and headings that exist: ruby tests/docs_test.rb
class DocsTest < Minitest::Test
  ROOT = File.expand_path("..", __dir__)
  # Pages whose paths lead a newcomer through the code.
  MAPS = %w[CONTRIBUTING.md docs/architecture.md].freeze
  # Neither written by us nor kept: build results, scratch space, unpacked fuzzing inputs.
  SKIPPED = %w[target/ tmp/ fuzz/target/ fuzz/corpus/ fuzz/artifacts/].freeze
  PATH = %r{\A[\w.-]+(?:/[\w.-]+)*/?\z}
  # Marks a path that a change in progress is going to create.
  VERIFY = /<!-- verify: [^>]*-->/

  def test_the_figures_of_the_readme_are_those_that_were_measured
    readme = read("README.md")
    Figures.new.all.each { |what, figure| assert_includes readme, "| #{what} | #{figure} |", "README.md differs from benches/results" }
    assert_equal Figures.new.page, read("benches/results/README.md"), "run benches/support/figures.rb"
  end

  def test_paths_of_the_maps_exist
    MAPS.each do |page|
      paths = paths_in(read(page))
      refute_empty paths, "no path was found in #{page}"
      assert_empty paths.reject { |path| File.exist?(File.join(ROOT, path)) }, "#{page} names paths that do not exist"
    end
  end

  def test_relative_links_resolve
    pages = Dir.glob("**/*.md", base: ROOT).reject { |page| page.start_with?(*SKIPPED) }
    assert_includes pages, "README.md"
    broken = pages.flat_map { |page| links_in(read(page)).filter_map { |link| "#{page}: #{link}" unless resolves?(page, link) } }
    assert_empty broken
  end

  def test_the_checks_of_doctor_are_those_of_its_page
    sources = Dir[File.join(ROOT, "crates/diagctl/src/cli/doctor{.rs,/**/*.rs}")].reject { |path| path.end_with?("tests.rs") }
    code = sources.map { |path| File.read(path).split("#[cfg(test)]").first }.join
    ids = code.scan(/(?:let id = |Check::\w+\(\s*|verdict\(\s*|^\s+(?="remote\.))"([a-z]+(?:\.[a-z_]+)?)"/).flatten.uniq
    assert_operator ids.size, :>, 40, "the ids were not found in the code"
    page = read("docs/doctor.md")[/^## Checks$.*?^Limits and/m].lines.grep(/^\| `/).flat_map { |line| line.split("|")[1].scan(/`([a-z_.]+)`/).flatten }
    assert_equal ids.sort, page.sort
  end

  # The tests above must find these.
  def test_missing_paths_and_links_are_found
    page = "Build `nowhere/src/lib.rs`, `Makefile`, `docs/` and `nowhere.md`, not `meta.json`, `samples/`, `/proc/self/stat` or `make unit`.\n" \
           "| `crates/later` <!-- verify: crates/later --> | `scripts/deps` |\n`crates/later`\n  <!-- verify: crates/later -->\n"
    assert_equal %w[nowhere/src/lib.rs Makefile docs/ nowhere.md scripts/deps], paths_in(page)
    assert_equal %w[a.md b.md#c #d], links_in("[a](a.md) [b](b.md#c \"title\") `[x](code.md)` [d](#d) [web](https://example.org)\n```\n[y](block.md)\n```\n")
    assert resolves?("docs/architecture.md", "../README.md#installation")
    refute resolves?("docs/architecture.md", "CONTRIBUTING.md")
    refute resolves?("README.md", "README.md#no-such-heading")
  end

  def test_slugs_of_headings_are_those_of_github
    headings = "# One: `two` three\n## `[[rules]]`\n### A, b & c\n```\n# comment\n```\n## Same\n## Same\n"
    assert_equal %w[one-two-three rules a-b--c same same-1], slugs(headings)
  end

  private

  def read(page) = File.read(File.expand_path(page, ROOT), encoding: Encoding::UTF_8)

  # Code spans that are paths from the root: of several components, an entry of the root, or a page. A single name may also be
  # that of a file in a store.
  def paths_in(text)
    roots = Dir.children(ROOT)
    spans = text.gsub(/`[^`\n]+`\s+#{VERIFY}/, "").lines.flat_map { |line| line.scan(/`([^`]+)`/).flatten }
    spans.grep(PATH).select { |span| span.match?(%r{/.|\.md\z}) || roots.include?(span.chomp("/")) }.uniq
  end

  # Targets of relative links outside of code.
  def links_in(text)
    prose(text).gsub(/`[^`]*`/, "").scan(/\]\(([^)\s]+)[^)]*\)/).flatten.grep_v(/\A[a-z]+:/)
  end

  def resolves?(page, link)
    path, anchor = link.split("#", 2)
    target = path.empty? ? page : File.join(File.dirname(page), path)
    target = File.expand_path(target, ROOT)
    return false unless File.exist?(target)

    anchor.nil? || !target.end_with?(".md") || slugs(read(target)).include?(anchor)
  end

  def slugs(text)
    seen = Hash.new(-1)
    prose(text).scan(/^\#{1,6} +(.+?)\s*$/).flatten.map do |heading|
      slug = heading.downcase.gsub(/[^\p{Word}\- ]/, "").tr(" ", "-")
      (seen[slug] += 1).zero? ? slug : "#{slug}-#{seen[slug]}"
    end
  end

  # Without fenced blocks.
  def prose(text) = text.gsub(/^ *```.*?^ *```/m, "")
end
