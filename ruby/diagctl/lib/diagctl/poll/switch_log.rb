# frozen_string_literal: true

module Diagctl
  # Logs once that captures are switched off for this process, with the switch, and once that they are on again.
  # Poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class SwitchLog
    def initialize(log)
      @log = log
      @off = false
    end

    def note(verdict, reason)
      # A capture in progress says nothing about the switch.
      return if verdict == "busy" || (verdict == "disabled") == @off

      @off = !@off
      @log.info(@off ? "takes no captures: #{reason}" : "captures are on again")
    end
  end
end
