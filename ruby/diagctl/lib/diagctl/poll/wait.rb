# frozen_string_literal: true

module Diagctl
  # Decides how long the poll thread sleeps after an answer: until `retry_after`, with a look at requests/ every `poll_interval`.
  # Poll thread. Pure: takes times and modification times, returns decisions.
  #
  # @api private
  class Wait
    # Seconds. A lower limit, so that no answer can make the poll thread spin.
    SHORTEST = 0.02
    LONGEST = 3600.0
    # Seconds from an answer until an event may end the wait: an application may name an event on every request.
    EVENT_INTERVAL = 1.0

    # @param seen [Object, nil] modification time of requests/ before the poll that was answered. Any request that came later,
    #   and that the poll did not take, changes it.
    def initialize(now:, retry_after:, poll_interval:, seen:)
      @due = now + retry_after.clamp(SHORTEST, LONGEST)
      @event_due = [@due, now + EVENT_INTERVAL].min
      @look = poll_interval.clamp(SHORTEST, LONGEST)
      @seen = seen
    end

    # @param event [Boolean] whether an event is pending
    # @return [Float] seconds to the next look; 0 when the wait is over
    def sleep_for(now, event: false)
      ((event ? @event_due : @due) - now).clamp(0, @look)
    end

    # @return [Boolean] whether a pending event ends the wait
    def event_due?(now)
      now >= @event_due
    end

    def over?(now, seen)
      now >= @due || seen != @seen
    end
  end
end
