# frozen_string_literal: true

module Diagctl
  # Names of events that wait for the next poll.
  #
  # Any thread of the worker, and signal handlers. A handler must not lock a mutex, so this class relies on single array
  # operations being atomic in Ruby.
  #
  # @api private
  class Events
    LIMIT = 100

    def initialize
      @names = []
    end

    # @return [Object, nil] nil when the event was already pending, or there are too many
    def add(name)
      @names.push(name) unless @names.include?(name) || @names.size >= LIMIT
    end

    def any?
      !@names.empty?
    end

    # @return [Array<String>] the pending events, which are then no longer pending
    def take
      @names.shift(LIMIT)
    end

    # Puts events back after a poll that failed before it was answered.
    def restore(names)
      names.each { |name| add(name) }
    end
  end
end
