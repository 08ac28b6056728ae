# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"
require_relative "support/asking"

module E2E
  # What changes around `ship --watch` while it runs.
  class ShipWatchTest < DirectoryCase
    include Reading
    include Asking

    def test_a_store_that_was_renamed_deleted_or_replaced_is_not_kept
      first = capture
      log = watch
      wait_for_shipped(first, log)
      File.rename(@store, "#{@store}-old")
      wait_for_line(log, /the store #{@store} was deleted, renamed or replaced; waiting/)
      second = capture
      wait_for_shipped(second, log)
      other = "#{@store}-other"
      third = capture_in(other)
      File.rename(@store, "#{@store}-older")
      File.rename(other, @store)
      wait_for_shipped(third, log)
      FileUtils.rm_rf(@store)
      fourth = capture
      wait_for_shipped(fourth, log)
      assert_equal [3, 3], [/was deleted, renamed or replaced/, /ships the captures of the store that is in #{@store} now/].map { |line| File.read(log).scan(line).size },
                   File.read(log)
      assert_equal [first, second, third, fourth].sort, remote_list("-q").out.split.sort
      refute_match(/cannot/, File.read(log))
    end

    # It waits for its turn on the lock of the old store.
    def test_a_second_watcher_follows_the_store_too
      capture
      watch
      log = File.join(@root, "second.log")
      @pids << spawn(shipping_env, BIN, "ship", "--watch", unsetenv_others: true, %i[out err] => log)
      wait_for_line(log, /waits for the shipper/)
      File.rename(@store, "#{@store}-old")
      wait_for_line(log, /the store #{@store} was deleted/)
      capture
      first = @pids.shift
      Process.kill(:TERM, first) && Process.wait(first)
      id = capture
      wait_for_shipped(id, log)
    end

    def remote_section = "#{super}\n#{Asking::ALLOW}"

    private

    def wait_for_shipped(id, log) = wait_until("#{id} is shipped", deadline: 20, tell: -> { File.read(log) }) { shipped?(id) }

    def wait_for_line(log, line) = wait_until(line.source, deadline: 20, tell: -> { File.read(log) }) { File.read(log).match?(line) }
  end
end
