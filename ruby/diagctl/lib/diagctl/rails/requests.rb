# frozen_string_literal: true

module Diagctl
  # Tells diagctl which action of which controller works, from the event that Rails publishes around each. Its other fields (path,
  # parameters, request) are not read.
  #
  # Threads of requests. Rails calls both methods also if the action raises.
  #
  # @api private
  class Requests
    EVENT = "process_action.action_controller"

    def initialize(work)
      @work = work
    end

    def start(_event, _id, payload)
      @work.start("#{payload[:controller]}##{payload[:action]}")
    end

    def finish(_event, _id, _payload)
      @work.finish
    end
  end
end
