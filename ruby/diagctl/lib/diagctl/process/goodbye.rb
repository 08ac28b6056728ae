# frozen_string_literal: true

module Diagctl
  # The goodbye of a process that polled and ends by itself, so that `diagctl deaths` does not take a stop or a restart for a death.
  # A process that is killed says nothing. One that an exception ends names its class, and counts as a death.
  #
  # Main thread, while Ruby exits. A forked child inherits the handler, but it is another process and says nothing.
  #
  # @api private
  module Goodbye
    class << self
      # @param agent [Agent] of this process
      def install(agent)
        @agent = agent
        return if @pid == Process.pid

        @pid = Process.pid
        at_exit do
          @said = true
          say($!)
        end
      end

      # @return [Boolean] whether this process is ending. `Thread.main.alive?` cannot tell: Ruby calls the main thread dead while it
      #   waits for the others to end, but alive for as long as a signal handler runs (rb_threadptr_execute_interrupts in thread.c)
      def said?
        @said && @pid == Process.pid
      end

      # @param error [Exception, nil] what ends the process
      def say(error)
        return unless @agent&.pid == Process.pid && (dir = @agent.dir)

        Ending.note(dir, by: "process", pid: Process.pid, start_ticks: Ending.start_ticks("self"), **facts(error))
      rescue StandardError
        nil # An exception here would change the exit status of the application.
      end

      private

      def facts(error)
        case error
        when nil then { exit: 0 }
        when SystemExit then { exit: error.status }
        when SignalException then { signal: error.signo }
        else { error: error.class.name || "Exception" }
        end
      end
    end
  end
end
