# frozen_string_literal: true

module Diagctl
  # How long to sleep after an answer: until `retry_after`, with one look at requests/ every `poll_interval`.
  # Pure: times and readings in, decisions out.
  #
  # @api private
  class Wait
    # A lower bound, so that no answer can make the poll thread spin.
    SHORTEST = 0.02
    LONGEST = 3600.0
    # An event ends the wait, but this long after an answer at the soonest: an application may name one at every request.
    EVENT_INTERVAL = 1.0

    # @param seen [Object, nil] what requests/ looked like before the poll whose answer is waited on. A request
    #   that arrived after that reading and that the poll did not consume changes it, so none is slept through.
    def initialize(now:, retry_after:, poll_interval:, seen:)
      @due = now + retry_after.clamp(SHORTEST, LONGEST)
      @listening = [@due, now + EVENT_INTERVAL].min
      @look = poll_interval.clamp(SHORTEST, LONGEST)
      @seen = seen
    end

    # @param event [Boolean] whether one waits to be told
    # @return [Float] seconds to the next look; 0 when the wait is over
    def sleep_for(now, event: false)
      ((event ? @listening : @due) - now).clamp(0, @look)
    end

    # Whether an event ends the wait by now.
    def listening?(now)
      now >= @listening
    end

    def over?(now, seen)
      now >= @due || seen != @seen
    end
  end
end
