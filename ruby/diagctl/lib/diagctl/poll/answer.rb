# frozen_string_literal: true

module Diagctl
  # The answer of `diagctl acquire`: a verdict with its reason, when to poll again, and the grant, if there is one.
  # Poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class Answer
    SCHEMA = 1
    VERDICTS = %w[granted idle pending cooldown throttled busy guarded disabled].freeze
    # Exit statuses of `diagctl acquire`.
    GRANTED = 0
    NOT_GRANTED = 10

    # @!attribute [r] rule
    #   @return [String, nil] name of the rule that decided
    # @!attribute [r] warning
    #   @return [String, nil] something for the operator to fix; the answer is valid all the same
    # @!attribute [r] retry_after
    #   @return [Float] seconds until the next poll
    # @!attribute [r] poll_interval
    #   @return [Float] seconds between two looks at the directory of requests
    # @!attribute [r] grant
    #   @return [Grant, nil]
    attr_reader :verdict, :reason, :rule, :warning, :retry_after, :poll_interval, :grant

    # @param status [Integer, nil] exit status; nil when the application reaped the program first
    # @raise [Problem]
    def initialize(stdout, status)
      fields = Fields.new(stdout)
      schema = fields["schema"]
      fields.reject("its schema is #{schema.inspect}, this gem reads #{SCHEMA}; update the gem") unless schema == SCHEMA

      @verdict = fields.one_of("verdict", VERDICTS)
      @reason = Diagctl.one_line(fields["reason"])
      @rule = Diagctl.one_line(fields["rule"]) if fields["rule"]
      @warning = fields["warning"]
      @retry_after = fields.number("retry_after", 0)
      @poll_interval = fields.number("poll_interval", 0)
      granted = verdict == "granted"
      unless status.nil? || granted == (status == GRANTED)
        fields.reject("verdict #{verdict} contradicts exit status #{status}")
      end
      @grant = Grant.new(fields) if granted
    end
  end
end
