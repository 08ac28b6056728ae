# frozen_string_literal: true

module Diagctl
  # A thread that runs one block after another. Worker; made and used by the poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class CallbackThread
    def initialize
      @mutex = Mutex.new
      @changed = ConditionVariable.new
      @thread = Thread.new { work }
      @thread.report_on_exception = false
      @thread.abort_on_exception = false
      @thread.thread_variable_set(:fork_safe, true)
    end

    def name=(name)
      @thread.name = name
    end

    def alive?
      @thread.alive?
    end

    def kill
      @thread.kill
    end

    # Runs the block on the thread, and waits for it. A thread that is late ends when the block returns, and is not used again.
    #
    # @return [Array(Symbol, Object)] :ok and the value, :raised and the exception, :ended or :late
    def run(timeout, &block)
      limit = Clock.now + timeout
      @mutex.synchronize do
        @block = block
        @outcome = nil
        @changed.broadcast
        @changed.wait(@mutex, limit - Clock.now) while @outcome.nil? && @thread.alive? && Clock.now < limit
        @outcome || [@thread.alive? ? :late : :ended]
      ensure
        # Late, or the caller was killed.
        @retired = @outcome.nil?
      end
    end

    # Ends the thread, once its block has returned.
    def retire
      @mutex.synchronize do
        @retired = true
        @changed.broadcast
      end
    end

    private

    def work
      while (block = next_block)
        answer(call(block))
      end
    ensure
      # The application ended the thread.
      answer([:ended])
    end

    def next_block
      @mutex.synchronize do
        @changed.wait(@mutex) until @block || @retired
        @block unless @retired
      end
    end

    def call(block)
      [:ok, block.call]
    rescue Exception => e # rubocop:disable Lint/RescueException
      # Rescues SystemExit too: Ruby would pass it on to the main thread and end the application.
      [:raised, e]
    end

    def answer(outcome)
      @mutex.synchronize do
        @block = nil
        @outcome ||= outcome
        @changed.broadcast
      end
    end
  end
end
