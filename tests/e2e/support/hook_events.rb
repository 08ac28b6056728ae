# frozen_string_literal: true

require_relative "e2e"

module E2E
  # The event about a capture of which a hook was told, or should have been.
  module HookEvents
    def event_of(id)
      wait_until("an event of the hook about #{id}", tell: -> { diagctl("events").out }) do
        diagctl!("events", "--json").json.fetch("events").find { |event| event["id"] == id && event["event"].start_with?("hook") }
      end
    end
  end
end
