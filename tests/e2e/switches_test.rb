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

  # A configuration file has a switch of its own, so the binary must be asked. Here it is off.
  def test_unset_with_a_configuration_that_does_not_enable_captures_nothing
    server = puma(env: env(DIAGCTL_ENABLED: nil, DIAGCTL_BIN: @witness))
    sleep 2.5
    assert_empty captures
    server.stop
  end

  def test_0_spawns_nothing = assert_off(env(DIAGCTL_ENABLED: "0", DIAGCTL_BIN: @witness))

  def test_false_spawns_nothing = assert_off(env(DIAGCTL_ENABLED: "false", DIAGCTL_BIN: @witness), workers: 2)

  def test_enabled_block_that_returns_false_means_off
    server = assert_off(env(DIAGCTL_BIN: @witness), initializer: "Diagctl.configure { |c| c.enabled { false } }")
    assert_operator server.diagctl_lines.size, :<=, 1
  end

  def test_enabled_block_that_raises_means_off_and_is_logged_once
    server = assert_off(env(DIAGCTL_BIN: @witness), initializer: 'Diagctl.configure { |c| c.enabled { raise "flag service is down" } }')
    assert_equal 1, server.log.scan("flag service is down").size, server.log
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

  # Waits long enough for ten polls and two ticks of the rule.
  def assert_off(env, **options)
    server = puma(env: env, **options)
    quiet_until = E2E.clock + 2.5
    while E2E.clock < quiet_until
      assert server.get("/")
      sleep 0.05
    end
    refute_path_exists @calls, "a diagctl process was spawned"
    assert_empty captures
    server
  end
end
