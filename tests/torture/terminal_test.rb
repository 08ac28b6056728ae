# frozen_string_literal: true

require "pty"
require_relative "support/torture"

# Text from others that controls a terminal, leads out of a directory or is not valid UTF-8, in every argument, record and file
# name.
class TerminalTest < Torture::Case
  NASTY = {
    "newline and escape" => "a\n\e[31mred\e[0m\r\t\b\a",
    "window title" => "\e]0;owned\a\u009b31m",
    "bidi" => "abc\u202egnp.exe\u2066",
    "traversal" => "../../../../tmp/x",
    "long" => "x" * 4096,
    "not text" => "\xff\xfe\xc3"
  }.freeze

  # No field that an attacker can fill lets the output control the terminal.
  def test_no_printed_field_can_control_a_terminal
    store_capture
    NASTY.each do |what, text|
      feed(text)
      plant(text)
      outputs = [%w[list], %w[show latest], %w[status --explain], %w[gc --dry-run], %w[list --json], %w[status --json], ["show", text], ["fetch", text],
                 ["rm", text], ["pin", "latest:#{text}"], ["fetch", "latest:#{text}"], ["request", text, "--reason", "x"], ["list", "--role", text], %w[samples]]
      outputs.each { |argv| assert_printable(diagctl(*argv), what) }
    end
    assert_equal %w[store], Dir.children(@root).grep(/store/)
  end

  # On a terminal, colours come only from diagctl and never from outside text.
  def test_no_output_controls_a_real_terminal
    id = store_capture
    NASTY.except("not text").each do |what, text|
      plant(text)
      [["--#{text}"], [text], ["list", text], ["list", "--since", text], ["show", text], %w[list], ["show", id], %w[status --explain]].each do |argv|
        printed = on_a_terminal(*argv).gsub(/\e\[[0-9;]*m/, "")
        found = printed.tr("\r\n", "")[/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/]
        assert_nil found, "#{what}: #{argv.first(2)} printed #{printed.inspect[0, 500]}"
      end
    end
  end

  private

  def on_a_terminal(*argv)
    PTY.spawn(env(TERM: "xterm"), E2E::BIN, *argv, unsetenv_others: true) do |out, _, pid|
      printed = +""
      begin
        loop { printed << out.readpartial(65_536) }
      rescue Errno::EIO, EOFError
        Process.wait(pid) # The terminal closed when the program ended.
      end
      return printed.force_encoding("UTF-8").scrub
    end
  end

  # Passes the text through every argument of the protocol. Most attempts are refused, and must be refused cleanly.
  def feed(text)
    attempts = [["--role", text], ["--name", text], ["--gauge", "#{text}=1"], ["--event", text]].map do |flags|
      dumper = holder
      role = flags.first == "--role" ? {} : { role: "puma" }
      result = dumper.acquire(*flags, **role)
      dumper.close
      result
    end
    attempts << diagctl("request", "gc_stat", "--reason", text) << diagctl("request", "gc_stat", "--role", text, "--reason", "x") << diagctl("request", "gc_stat", "--reason", "x")
    dumper = holder
    attempts << dumper.acquire
    if dumper.granted?
      attempts << dumper.put(text, "{}")
      attempts << dumper.put("gc_stat", "{}")
      attempts << dumper.finalize("--failed", "#{text}=x")
      attempts << dumper.finalize("--failed", "gc_stat=#{text}", "--set", "#{text[0, 100]}=#{text}", "--set", "versions.ruby=#{text}", "--set", "team=#{text}")
      attempts << dumper.abort(text) unless attempts.last.ok?
    end
    dumper.close
    attempts.each { |result| assert_printable(result, "fed") }
  rescue ArgumentError
    nil # Ruby itself refuses to pass such an argument
  end

  # Writes the text by hand into every field of a record and into file names, because a restored backup can come from anybody.
  def plant(text)
    id = captures.first.fetch("id")
    path = File.join(@store, "reports", id, "meta.json")
    legible = text.dup.force_encoding("UTF-8").scrub("?")
    meta = JSON.parse(File.read(path)).except("check")
    %w[host role worker rule created].each { |key| meta[key] = legible }
    meta["trigger"] = { "name" => legible, "reason" => legible, "observed" => { legible => 1 } }
    meta["labels"] = meta["versions"] = { legible => legible }
    meta["cost"] = { legible => 1, "#{legible}_ms" => 2 }
    meta["reports"].each { |report| report.merge!("content_type" => legible, "encoding" => legible, "error" => legible) }
    File.write(path, JSON.generate(meta))
    plant_damaged(id, meta, legible)
    FileUtils.rm_f(File.join(@store, "index.jsonl"))
    name = text.dup.force_encoding("BINARY").tr("/\0", "_")[0, 200]
    %w[quarantine reports requests staging samples].each { |dir| FileUtils.touch(File.join(@store, dir, name)) }
    File.write(File.join(@store, "events.jsonl"), "#{JSON.generate(at: legible, event: legible, id: legible, rule: legible, reason: legible)}\n")
  end

  # A report's name of another form makes a record unreadable. The message quotes it.
  def plant_damaged(id, meta, legible)
    damaged = id.sub(/.{8}\z/, "deadbeef")
    FileUtils.mkdir_p(File.join(@store, "reports", damaged), mode: 0o700)
    reports = meta["reports"].map { |report| report.merge("name" => legible) }
    File.write(File.join(@store, "reports", damaged, "meta.json"), JSON.generate(meta.merge("id" => damaged, "reports" => reports)))
  end

  def assert_printable(result, what)
    [result.out, result.err].each do |text|
      assert text.valid_encoding?, "#{what}: #{result.argv}"
      found = text[/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]|\t/]
      assert_nil found, "#{what}: #{result.argv.first(4)} printed #{found.inspect}"
      refute_match(/[\u202a-\u202e\u2066-\u2069]/, text, "#{what}: characters that reorder a line")
    end
  end
end
