# frozen_string_literal: true

require_relative "support/e2e"

# When diagctl is off, it spawns no process and captures nothing, and Puma is not affected.
class SwitchesTest < E2E::Case
  def setup
    super
    configure(rule("often", 'timer = { every = "1s", initial_delay = "0s" }', ["gc_stat"]))
    # A wrapper around the real binary that records each start.
    @calls = File.join(@root, "calls")
    @witness = File.join(@root, "diagctl-witness")
    File.write(@witness, "#!/bin/sh\necho \"$*\" >> #{@calls}\nexec #{E2E::BIN} \"$@\"\n")
    File.chmod(0o755, @witness)
  end

  def test_enabled_by_1_or_true
    %w[1 true].each do |value|
      server = puma(env: env(DIAGCTL_ENABLED: value, DIAGCTL_BIN: @witness))
      wait_for_captures(server)
      assert_path_exists @calls
      server.stop
      FileUtils.rm_rf([@store, @calls])
    end
  end

  def test_unset_without_a_configuration_spawns_nothing
    assert_off(env(DIAGCTL_ENABLED: nil, DIAGCTL_CONFIG: nil, DIAGCTL_BIN: @witness))
  end

  # A configuration file has a switch of its own, so the binary must be asked. Here it is off, and then turned on.
  def test_unset_with_a_configuration_that_does_not_enable_captures_nothing_and_says_so
    unset = env(DIAGCTL_ENABLED: nil)
    server = puma(env: unset, workers: 2)
    assert_named_everywhere(server, 2, "switched off by default: set DIAGCTL_ENABLED=1, or enabled = true", unset)
    assert_empty captures
    turned_on = E2E.clock
    File.write(config_path, "enabled = true\n#{File.read(config_path)}")
    wait_for_captures(server)
    assert_operator E2E.clock - turned_on, :<, 10, "with a poll interval of 200 ms; it was a minute"
    assert_equal 2, server.diagctl_lines.grep(/captures are on again/).size, server.log
  end

  def test_a_file_that_says_off_is_named_everywhere
    unset = env(DIAGCTL_ENABLED: nil)
    File.write(config_path, "enabled = false\n#{File.read(config_path)}")
    assert_named_everywhere(puma(env: unset), 1, "switched off: enabled = false in #{config_path}", unset)
  end

  def test_0_spawns_nothing = assert_off(env(DIAGCTL_ENABLED: "0", DIAGCTL_BIN: @witness))

  def test_false_spawns_nothing = assert_off(env(DIAGCTL_ENABLED: "false", DIAGCTL_BIN: @witness), workers: 2)

  # The store is told once, for `status`.
  def test_enabled_block_that_returns_false_means_off_and_is_named_everywhere
    server = assert_off(env(DIAGCTL_BIN: @witness), told: 1, initializer: "Diagctl.configure { |c| c.enabled { false } }")
    assert_equal 1, server.diagctl_lines.size, server.log
    assert_named_everywhere(server, 1, "switched off by the application: its `c.enabled` does not return true")
  end

  def test_enabled_block_that_raises_means_off_and_is_logged_once
    server = assert_off(env(DIAGCTL_BIN: @witness), told: 1, initializer: 'Diagctl.configure { |c| c.enabled { raise "flag service is down" } }')
    assert_equal 1, server.log.scan("flag service is down").size, server.log
  end

  def test_a_pause_is_named_everywhere
    server = puma
    wait_for_captures(server)
    diagctl!("pause")
    assert_named_everywhere(server, 1, "`diagctl resume` ends it")
  end

  def test_enabled_block_is_called_at_every_poll
    flag = File.join(@root, "flag")
    server = puma(initializer: "Diagctl.configure { |c| c.enabled { File.exist?(#{flag.inspect}) } }")
    sleep 1
    assert_empty captures
    File.write(flag, "")
    wait_for_captures(server)
  end

  private

  # The switch that is off is in the log of each process once, in `status`, in `doctor` and in the answer to a request.
  def assert_named_everywhere(server, workers, reason, environment = env)
    wait_until("all processes polled", tell: -> { "#{server.log}\n#{diagctl('status', '--explain')}" }) do
      File.exist?(File.join(@store, "FORMAT")) && diagctl!("status", "--json").json.fetch("processes").count { |process| process["verdict"] == "disabled" } == workers
    end
    assert_equal workers, server.diagctl_lines.count { |line| line.include?("takes no captures: ") && line.include?(reason) }, server.log
    assert_includes diagctl!("status", env: environment).out[/^switch .*/], reason
    assert_includes diagctl!("status", "--explain").out, "disabled, "
    assert_includes diagctl!("doctor", env: environment).out.lines.grep(/ (pause|processes.polling) /).join, reason
    result = diagctl("request", "gc_stat", "--reason", "now", "--wait", "--expires", "1s", env: environment)
    assert_equal 10, result.status, result
    assert_includes result.err, reason
  end

  # Waits long enough for ten polls and two ticks of the rule. `told` is the number of times that the store may be told of it.
  def assert_off(env, told: 0, **options)
    server = puma(env: env, **options)
    quiet_until = E2E.clock + 2.5
    while E2E.clock < quiet_until
      assert server.get("/")
      sleep 0.05
    end
    calls = File.exist?(@calls) ? File.readlines(@calls, chomp: true) : []
    assert_equal told, calls.grep(/ acquire .* --off\z/).size, calls
    assert_equal told, calls.size, "a diagctl process was spawned: #{calls}"
    assert_empty captures
    server
  end
end
