# frozen_string_literal: true

require_relative "../helper"

# The note on the end of a process, and when there is none.
class EndingTest < Minitest::Test
  include Sandbox

  def test_a_note_is_one_line_beside_the_polls
    samples("")
    assert Diagctl::Ending.note(@store, by: "parent", pid: 7, exit: 3, oom_kill: true, killer: "a \"quoted\" one")
    note = notes.first
    assert_equal({ "by" => "parent", "pid" => 7, "exit" => 3, "oom_kill" => true }, note["ended"].except("pid_ns"))
    assert_equal File.stat("/proc/self/ns/pid").ino, note["ended"]["pid_ns"]
    assert_in_delta Time.now.to_f * 1000, note["at"], 60_000
  end

  def test_nothing_is_created_followed_or_waited_for
    refute note, "no poll was recorded"
    refute_path_exists path
    File.symlink(File.join(@dir, "elsewhere"), path)
    File.write(File.join(@dir, "elsewhere"), "")
    refute note
    assert_empty File.read(File.join(@dir, "elsewhere"))
    File.unlink(path)
    File.mkfifo(path)
    refute(Timeout.timeout(20) { note })
  end

  def test_a_process_says_goodbye_and_its_forked_child_does_not
    samples("")
    agent = Struct.new(:pid, :dir)
    pid = fork do
      Diagctl::Goodbye.install(agent.new(Process.pid, @store))
      Diagctl::Goodbye.install(agent.new(Process.pid, @store))
      Process.wait(fork { exit })
      exit 4
    end
    Process.wait(pid)
    assert_equal [[pid, 4]], notes.map { |note| note["ended"].values_at("pid", "exit") }
    assert_operator notes.first["ended"]["start_ticks"], :>, 0
  end

  def test_an_exception_is_named_without_its_message
    samples("")
    Diagctl::Goodbye.instance_variable_set(:@agent, Struct.new(:pid, :dir).new(Process.pid, @store))
    [nil, SystemExit.new(2, "secret"), SignalException.new("TERM"), ArgumentError.new("secret"), Class.new(StandardError).new].each do |error|
      Diagctl::Goodbye.say(error)
    end
    told = notes.map { |note| note["ended"].slice("exit", "signal", "error") }
    assert_equal [{ "exit" => 0 }, { "exit" => 2 }, { "signal" => 15 }, { "error" => "ArgumentError" }, { "error" => "Exception" }], told
    refute_includes File.read(path), "secret"
  ensure
    Diagctl::Goodbye.instance_variable_set(:@agent, nil)
  end

  # It runs while the application exits, whose exit status an exception would change.
  def test_an_exception_with_a_broken_class_raises_nothing
    samples("")
    Diagctl::Goodbye.instance_variable_set(:@agent, Struct.new(:pid, :dir).new(Process.pid, @store))
    broken = Class.new(StandardError) { def self.name = raise("no name") }
    assert_nil Diagctl::Goodbye.say(broken.new)
  ensure
    Diagctl::Goodbye.instance_variable_set(:@agent, nil)
  end

  def test_a_killer_announces_itself_from_another_process
    samples("")
    before = ENV.fetch("DIAGCTL_DIR", nil)
    ENV["DIAGCTL_DIR"] = @store
    assert Diagctl.announce_kill("puma_worker_killer", pid: Process.pid)
    refute Diagctl.announce_kill("not a name")
    ENV.delete("DIAGCTL_DIR")
    refute Diagctl.announce_kill(:killer)
    assert_equal [["killer", "puma_worker_killer"]], notes.map { |note| note["ended"].values_at("by", "killer") }
  ensure
    ENV["DIAGCTL_DIR"] = before
  end

  private

  def path = File.join(@store, "samples.jsonl")

  def samples(text) = File.write(path, text)

  def note = Diagctl::Ending.note(@store, by: "process", pid: 1, exit: 0)

  def notes = File.readlines(path).map { |line| JSON.parse(line) }
end
