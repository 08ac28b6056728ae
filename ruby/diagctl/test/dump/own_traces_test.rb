# frozen_string_literal: true

require_relative "../helper"

# A heap dump shows the application, and next to nothing of diagctl.
class OwnTracesTest < Minitest::Test
  include Sandbox

  POLLS = 120
  DESCRIPTORS = 5_000
  # Objects by which a dump of dump_all may differ from the worker right before the fork. The walker's own facts come on top, see
  # tests/e2e/heap_walker_test.rb.
  OWN = 420

  def test_the_dump_counts_what_the_worker_had_right_before_the_fork
    before, dumped = counts_around_a_dump
    types = before.keys.grep(/\AT_/) - %w[T_NONE T_ZOMBIE T_MOVED]
    differences = types.to_h { |type| [type, dumped.fetch(type.delete_prefix("T_"), 0) - before.fetch(type)] }
    assert_operator differences.values.sum(&:abs), :<=, OWN, differences.reject { |_, count| count.zero? }.inspect
    assert_operator differences.fetch("T_FILE"), :<, 25
  end

  # The sizes that Fiddle's pointers claim are those of what they point to.
  def test_no_object_of_diagctl_has_a_false_size
    counts_around_a_dump
    pointers = objects.select { |object| object["type"] == "DATA" && object["struct"].to_s.downcase.include?("fiddle") }
    refute_empty pointers
    assert_operator pointers.map { |object| object.fetch("memsize", 0) }.max, :<, 1 << 20
    assert_operator pointers.size, :<, 200 + (POLLS * 12)
  end

  private

  def objects = File.foreach(File.join(@store, "put.heap_dump"), encoding: Encoding::BINARY).map { |line| JSON.parse(line) }

  def counts_around_a_dump
    path = granting_binary(reports: { "heap_dump" => "snapshot" })
    grant = File.join(@store, "grant")
    File.rename(grant, "#{grant}.later")
    out, = ruby(<<~RUBY, env: { "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path }, prefix: ["prlimit", "--nofile=#{DESCRIPTORS + 500}:#{DESCRIPTORS + 500}"])
      Diagctl.configure { |c| c.first_poll_within = 60 }
      Diagctl.start
      FILES = Array.new(#{DESCRIPTORS}) { File.open("/dev/null") }
      #{POLLS}.times { Diagctl.capture }
      File.rename(#{"#{grant}.later".dump}, #{grant.dump})
      fork_for_real = Diagctl::ForkGuard.method(:raw_fork)
      before = nil
      Diagctl::ForkGuard.define_singleton_method(:raw_fork) do
        # The first count makes objects itself.
        before ||= ObjectSpace.count_objects && ObjectSpace.count_objects
        fork_for_real.call
      end
      Diagctl.capture while File.exist?(#{grant.dump})
      sleep 0.01 until Diagctl.instance_variable_get(:@agent).dumper.nil?
      puts JSON.generate(before)
    RUBY
    dumped = objects.map { |object| object["type"] }.tally
    [JSON.parse(out.lines.grep(/\A\{/).last), dumped]
  end
end
