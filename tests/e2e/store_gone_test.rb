# frozen_string_literal: true

require_relative "support/e2e"

# An operator removes, moves or replaces the store and the program while a Puma uses them. Puma keeps serving, logs the problem,
# and captures again without a restart.
class StoreGoneTest < E2E::Case
  QUICK = "Diagctl.configure { |c| c.backoff = 0.5 }"

  def setup
    super
    @program = File.join(@root, "bin", "diagctl")
    FileUtils.mkdir_p(File.dirname(@program))
    FileUtils.cp(E2E::BIN, @program)
    @server = puma(env: env(DIAGCTL_BIN: @program), workers: 2, initializer: QUICK)
    @traffic = E2E::Traffic.new(@server)
    wait_until("a store", tell: @server.method(:log)) { store? }
  end

  def test_a_removed_store_is_recreated
    FileUtils.rm_rf(@store)
    assert_captures_again
  end

  def test_a_store_removed_during_a_dump_is_recreated
    hold_a_dump { FileUtils.rm_rf(@store) }
    assert_captures_again
    wait_until("the dump has failed", tell: @server.method(:log)) { @server.log.match?(/capture \S+ \(on_demand\): `diagctl finalize` ended with status 1/) }
  end

  # `rm -rf` while processes poll: one of them writes into a directory that is already empty.
  def test_a_partly_removed_store_is_repaired
    kept = store_capture_of_puma
    E2E::Processes.signal(:STOP, *@server.workers)
    File.delete(File.join(@store, "FORMAT"))
    FileUtils.rm_rf(File.join(@store, "samples"))
    E2E::Processes.signal(:CONT, *@server.workers)
    wait_until("it captures again", deadline: 60, every: 0.1, tell: @server.method(:log)) { ask && captures.size > 1 }
    assert_includes captures.map { |capture| capture["id"] }, kept
    assert diagctl!("verify", "--all").ok?
    assert_goes_on
  end

  # The dump in progress cannot be published in its place, and is in neither store.
  def test_a_store_can_be_moved_away_and_back_during_dumps
    away = "#{@store}.away"
    kept = store_capture_of_puma
    hold_a_dump { File.rename(@store, away) }
    assert_captures_again
    assert_equal [kept], diagctl!("--dir", away, "list", "--json").json.fetch("captures").map { |capture| capture["id"] }
    # Programs that the workers started before may still make a store in between.
    E2E::Processes.signal(:STOP, *@server.workers)
    wait_until("the old store is back", every: 0.01) do
      FileUtils.rm_rf(@store)
      File.rename(away, @store)
    rescue Errno::ENOTEMPTY, Errno::EEXIST
      false
    end
    E2E::Processes.signal(:CONT, *@server.workers)
    wait_until("a capture beside the old one", deadline: 60, tell: @server.method(:log)) { ask && captures.size > 1 }
    assert_includes captures.map { |capture| capture["id"] }, kept
    assert diagctl!("verify", "--all").ok?
    assert_goes_on
  end

  def test_the_program_can_be_replaced_or_removed_during_a_dump
    hold_a_dump do
      FileUtils.cp(E2E::BIN, "#{@program}.new")
      File.rename("#{@program}.new", @program)
    end
    wait_for_captures(@server)
    lost = hold_a_dump do
      File.delete(@program)
      Dir.children(File.join(@store, "staging")).first
    end
    wait_until("it is told", tell: @server.method(:log)) { @server.log.include?("No such file") }
    FileUtils.cp(E2E::BIN, @program)
    assert_captures_again(2)
    wait_until("what was lost is cleared away") { ask && !Dir.exist?(File.join(@store, "staging", lost)) }
  end

  def test_a_store_of_a_newer_version_is_left_alone
    hold_a_dump { File.write(File.join(@store, "FORMAT"), "2\n") }
    wait_until("it is told", tell: @server.method(:log)) { @server.log.match?(/status 6: .*has format 2/) }
    assert_empty Dir.children(File.join(@store, "reports"))
    File.write(File.join(@store, "FORMAT"), "1\n")
    assert_captures_again
  end

  private

  def store? = File.exist?(File.join(@store, "FORMAT"))

  # Runs the block during a dump, and asks for another if one was over before it could be held.
  def hold_a_dump
    happened = published = nil
    request = lambda do
      before, published = published, Dir.children(File.join(@store, "reports")).size
      diagctl!("request", "heap_dump", "--reason", "a test") if before != published
    end
    during_a_dump(missed: request) { happened = yield }
    happened
  end

  def store_capture_of_puma
    diagctl!("request", "gc_stat", "--reason", "a test")
    wait_for_captures(@server).first.fetch("id")
  end

  # Requests a capture if there is a store and no request is pending. Returns true if there is a store.
  def ask
    waiting = File.join(@store, "requests")
    return false unless store?

    diagctl!("request", "gc_stat", "--reason", "a test") if Dir.empty?(waiting)
    true
  end

  def assert_captures_again(count = 1)
    wait_until("it captures again", deadline: 60, every: 0.1, tell: @server.method(:log)) { ask && captures.size >= count }
    assert_goes_on
  end

  def assert_goes_on
    served = @traffic.served
    wait_until("clients are served", tell: @server.method(:log)) { @traffic.served > served + 20 }
    assert_equal 0, @traffic.failed, @server.log
    assert_operator @server.diagctl_lines.size, :<=, 20, @server.log
  end

  def teardown
    @traffic&.stop
    super
  end
end
