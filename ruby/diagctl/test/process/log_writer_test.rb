# frozen_string_literal: true

require_relative "../helper"

# The application's log may be a pipe that nobody reads.
class LogWriterTest < Minitest::Test
  include Sandbox

  # Waits in every line until `go` is called, as a logger on a full pipe does.
  class Stalled < RecordingLogger
    def initialize
      super
      @go = Queue.new
    end

    def go = @go.close

    def info(message)
      @go.pop
      super
    end
    alias warn info
  end

  def test_a_stalled_log_holds_up_nobody_and_what_is_lost_is_counted
    logger = Stalled.new
    @log.default = logger
    started = Diagctl::Clock.now
    150.times { |i| @log.info("line #{i}") }
    assert_operator Diagctl::Clock.now - started, :<, 10
    assert_empty logger.lines
    logger.go
    eventually("the rest is written") { logger.lines.include?("line 100") }
    assert_equal "line 0", logger.lines.first
    assert_equal "49 lines were lost while the log was stalled", logger.lines[1]
    @log.info("again")
    eventually("it goes on") { logger.lines.last == "again" }
  end

  def test_lines_are_written_in_order_before_the_caller_goes_on
    10.times { |i| @log.info("line #{i}") }
    assert_equal Array.new(10) { |i| "line #{i}" }, @logger.lines
  end

  def test_a_forked_child_writes_its_own_lines_only
    logger = Stalled.new
    @log.default = logger
    @log.info("of the parent")
    pid = fork do
      @log.default = own = RecordingLogger.new
      @log.info("of the child")
      exit!(own.lines == ["of the child"] ? 0 : 1)
    end
    assert_predicate Process.wait2(pid).last, :success?
    logger.go
  end

  # A pipe that nobody reads is the stderr of the process, too. The poll thread must go on serving.
  def test_a_process_whose_stderr_stalls_polls_and_captures_on
    path = granting_binary(reports: { "threads" => "inline" })
    reader, writer = IO.pipe
    loop { break if writer.write_nonblock("x" * 4096, exception: false) == :wait_writable }
    writer.nonblock = false
    pid = Process.spawn({ "DIAGCTL_DIR" => @store, "DIAGCTL_ENABLED" => "1", "DIAGCTL_BIN" => path }, RbConfig.ruby, "-I#{LIB}", "-rdiagctl", "-e",
      'Diagctl.configure { |c| c.first_poll_within = 0.01 }; Diagctl.start; sleep', err: writer, out: writer)
    writer.close
    eventually("a capture") { calls("finalize").any? }
    polls = calls("acquire").size
    File.utime(Time.now, Time.now + 5, FileUtils.mkdir_p(File.join(@store, "requests")).first)
    eventually("it polls on") { calls("acquire").size > polls }
  ensure
    Process.kill(:KILL, pid)
    Process.wait(pid)
    reader.close
  end
end
