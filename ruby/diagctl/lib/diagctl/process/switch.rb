# frozen_string_literal: true

module Diagctl
  # DIAGCTL_ENABLED, and the default when it is not set. Any thread. Pure: values in, a decision out.
  #
  # @api private
  class Switch
    CONFIG_FILE = "/etc/diagctl/diagctl.toml"
    ON = %w[1 true].freeze
    OFF = %w[0 false].freeze

    # @return [String, nil] a message for the operator about a wrong value
    attr_reader :warning
    # @return [String, nil] why diagctl is off in this process
    attr_reader :reason

    def initialize(env: ENV, config_file: CONFIG_FILE)
      value = env["DIAGCTL_ENABLED"]
      @on = if value.nil? || value.empty?
        # The configuration file has a switch of its own, which `diagctl acquire` reads; it answers `disabled`.
        !env["DIAGCTL_CONFIG"].to_s.empty? || File.exist?(config_file)
      elsif ON.include?(value) then true
      elsif OFF.include?(value) then false
      else
        @warning = "DIAGCTL_ENABLED=#{value.inspect} is not one of 1, true, 0, false; diagctl stays off"
        false
      end
      return if @on || @warning

      @reason = "off in this process: DIAGCTL_ENABLED is #{value.to_s.empty? ? "not set, and there is no #{config_file}" : value}"
    end

    def on?
      @on
    end
  end
end
