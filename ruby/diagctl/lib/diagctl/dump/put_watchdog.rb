# frozen_string_literal: true

module Diagctl
  # Kills a `diagctl put` that stops reading while the worker itself writes a snapshot report into it.
  #
  # The writing thread would otherwise hang in its write forever: no signal reaches it there, so killing that thread would hang
  # too. A process that exits ends its other threads first, hence the `ensure` in the watching thread.
  #
  # A thread of its own, in the worker. The forked dumper needs none: the kernel's alarm ends it.
  #
  # @api private
  module PutWatchdog
    INTERVAL = 0.05

    # @param put [Spawn]
    # @param deadline [Numeric] seconds that the block may take
    # @yield writes into the put, on the calling thread
    def self.watch(put, deadline)
      writer = Thread.current
      done = false
      watchdog = Thread.new do
        Thread.current.name = "diagctl watchdog"
        Thread.current.report_on_exception = false
        Thread.current.thread_variable_set(:fork_safe, true)
        limit = Clock.now + deadline
        sleep INTERVAL until done || writer.pending_interrupt? || Clock.now >= limit
      ensure
        put.kill unless done
      end
      begin
        yield
      ensure
        done = true
        watchdog.kill
      end
    end
  end
end
