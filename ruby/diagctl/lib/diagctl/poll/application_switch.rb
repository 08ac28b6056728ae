# frozen_string_literal: true

module Diagctl
  # The application's own switch: the block given to `c.enabled`, asked before every poll.
  # Poll thread, or the caller of Diagctl.capture. The block runs on a thread of diagctl's (Callback).
  #
  # @api private
  class ApplicationSwitch
    def initialize(config, log)
      @config = config
      @log = log
    end

    # @return [Boolean] true when the application has no switch; false when its block raises or does not return in time
    def on?
      block = @config.enabled_block
      return true if block.nil?

      Callback.call("enabled", @config.callback_timeout) { block.call ? true : false }
    rescue Unavailable => e
      @log.warn_once(:enabled, "#{e.message}; diagctl is off until it returns true")
      false
    end
  end
end
