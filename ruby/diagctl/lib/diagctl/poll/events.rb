# frozen_string_literal: true

module Diagctl
  # Names that wait for the next poll. Any thread, signal handlers included: a trap may not lock a mutex, so this
  # relies on single array operations being atomic in Ruby.
  #
  # @api private
  class Events
    LIMIT = 100

    def initialize
      @names = []
    end

    # @return [Object] true-like if it did not wait already
    def add(name)
      @names.push(name) unless @names.include?(name) || @names.size >= LIMIT
    end

    def any?
      !@names.empty?
    end

    def take
      @names.shift(LIMIT)
    end

    # After a poll that failed before it was answered.
    def restore(names)
      names.each { |name| add(name) }
    end
  end
end
