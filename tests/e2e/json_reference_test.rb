# frozen_string_literal: true

require_relative "support/e2e"

# docs/json.md names every field that a command prints with --json, on a store with a Puma that has grown and lost a worker.
class JsonReferenceTest < E2E::Case
  PAGE = File.join(E2E::ROOT, "docs/json.md")
  # Each command with the heading under which its fields are. ID, OTHER and PID stand for captures and a process.
  COMMANDS = {
    "list" => "list", "show ID" => "show", "status" => "status", "events" => "events", "samples" => "samples", "deaths" => "deaths",
    "diagnose ID" => "diagnose", "compare OTHER ID" => "compare", "verify --all" => "verify", "gc --dry-run" => "gc", "doctor" => "doctor",
    "request gc_stat --reason json" => "request", "request --list" => "request --list", "config check" => "config check",
    "config show" => "config show", "simulate --samples SAMPLES" => "simulate", "fetch ID:smaps -o FILE" => "fetch", 
    "heap top ID" => "heap top", "heap top SUMMARY" => "heap top", "heap retained ID" => "heap retained", "heap path ID String" => "heap path",
    "heap diff OTHER ID" => "heap diff", "heap object ID ADDRESS" => "heap object", "heap strings ID" => "heap strings",
    "heap waste ID" => "heap waste", "heap trend --pid PID" => "heap trend"
  }.freeze

  def test_every_field_is_documented
    sections = sections_of(File.read(PAGE))
    fill_the_store
    undocumented = COMMANDS.flat_map do |command, heading|
      documented = sections.fetch(heading) + sections.fetch("Every command")
      printed(command).flat_map { |value| paths(value, documented) }.uniq.reject { |path| documented.include?(path) }.map { |path| "#{heading}: #{path}" }
    end
    assert_empty undocumented
  end

  private

  def fill_the_store
    configure(rule("asked", 'on_demand = { min_interval = "1s" }', %w[gc_stat smaps malloc_info heap_dump]),
      remote: 'url = "file:///srv/nowhere"', on_capture: 'command = ["false"]')
    server = puma(workers: 2)
    wait_until("both poll", tell: server.method(:log)) { Dir[File.join(@store, "samples", "*")].size >= 2 }
    @pid, doomed = server.workers
    3.times { diagctl!("request", "heap_dump", "smaps", "gc_stat", "malloc_info", "--pid", @pid.to_s, "--reason", "json", "--wait") }
    Process.kill(:KILL, doomed)
    wait_until("the death is known") { JSON.parse(diagctl!("deaths", "--json").out)["deaths"].any? }
    @ids = captures.map { |capture| capture.fetch("id") }
  end

  # The values that a command prints: one, or one a line.
  def printed(command)
    samples = File.join(@root, "samples.jsonl")
    File.write(samples, diagctl!("samples", "--json").out)
    words = command.gsub("OTHER", @ids.last).gsub("SUMMARY", "#{@ids.first}:heap_summary").gsub(/\bID\b/, @ids.first).gsub("PID", @pid.to_s)
      .gsub("SAMPLES", samples).gsub("FILE", File.join(@root, "fetched")).gsub("ADDRESS") { address }
    result = diagctl(*words.split, "--json")
    refute_empty result.out, result
    result.out.lines.map { |line| JSON.parse(line) }
  end

  def address = JSON.parse(diagctl!("heap", "retained", @ids.first, "--json").out).fetch("retained").first.fetch("address")

  # Headings, and the names in the first column of the table below each.
  def sections_of(text)
    text.split(/^## /).drop(1).to_h do |section|
      heading, body = section.split("\n", 2)
      [heading.delete("`").sub(/\Adiagctl /, ""), body.lines.grep(/\A\| `/).flat_map { |line| line.split(" | ").first.scan(/`([^`]+)`/).flatten }]
    end
  end

  # `a.b[].c`. A documented `a{}` stands for a table with keys of any name.
  def paths(value, documented, at = "")
    case value
    when Hash
      return ["#{at}{}"] if documented.include?("#{at}{}")

      value.flat_map { |key, inner| paths(inner, documented, at.empty? ? key : "#{at}.#{key}") }
    when Array then value.empty? ? [] : value.flat_map { |inner| paths(inner, documented, "#{at}[]") }.uniq
    else [at]
    end
  end
end
