# frozen_string_literal: true

module Diagctl
  # What `acquire` answered, checked field by field: the binary is another program, maybe of another version.
  #
  # @api private
  class Answer
    SCHEMA = 1
    VERDICTS = %w[granted idle pending cooldown throttled busy guarded disabled].freeze
    ID = /\A[0-9A-Za-z][0-9A-Za-z._-]{0,99}\z/
    GRANTED = 0
    NOT_GRANTED = 10

    # One report to produce.
    GrantedReport = Struct.new(:name, :producer, :options)

    # @!attribute [r] warning
    #   @return [String, nil] what the operator should mend, although the answer stands
    attr_reader :verdict, :reason, :warning, :retry_after, :poll_interval, :rule, :capture, :reports, :snapshot, :deadline, :watch

    # @param code [Integer, nil] exit status; nil when the host reaped the child before us
    # @raise [Problem]
    def initialize(stdout, code)
      fields = JSON.parse(stdout)
      garbage("it is no JSON object") unless fields.is_a?(Hash)
      schema = fields["schema"]
      garbage("its schema is #{schema.inspect}, this plugin reads #{SCHEMA}; update the gem") unless schema == SCHEMA

      @verdict = one_of(fields, "verdict", VERDICTS)
      @reason = Diagctl.one_line(fields["reason"])
      @warning = fields["warning"]
      @rule = fields["rule"]
      @retry_after = number(fields, "retry_after", 0)
      @poll_interval = number(fields, "poll_interval", 0)
      garbage("verdict #{verdict} does not go with exit status #{code}") unless code.nil? || granted? == (code == GRANTED)
      read_grant(fields) if granted?
    rescue JSON::ParserError
      garbage("it is no JSON: #{Diagctl.one_line(stdout, 80).inspect}")
    end

    def granted?
      verdict == "granted"
    end

    private

    def read_grant(fields)
      @capture = fields["capture"]
      garbage("capture #{capture.inspect} is not an id") unless capture.is_a?(String) && ID.match?(capture)
      @snapshot = one_of(fields, "snapshot", %w[fork in_process])
      @deadline = number(fields, "deadline", 1)
      list = fields["reports"]
      garbage("reports is not a list") unless list.is_a?(Array)
      @reports = list.map { |entry| granted_report(entry) }
      @watch = fields.fetch("watch", []).tap { |watches| check_watches(watches) }
    end

    # The keys that name files and figures are Headroom's business, which passes over a kind that it does not know.
    def check_watches(watches)
      ok = watches.is_a?(Array) && watches.all? do |watch|
        watch.is_a?(Hash) && watch.all? { |_, value| value.is_a?(String) || (value.is_a?(Integer) && value >= 0) }
      end
      garbage("watch is #{Diagctl.one_line(watches.inspect, 80)}") unless ok
    end

    def granted_report(entry)
      ok = entry.is_a?(Hash) && entry["name"].is_a?(String) && %w[inline snapshot].include?(entry["producer"])
      garbage("a report is #{Diagctl.one_line(entry.inspect, 80)}") unless ok
      options = entry["options"]
      GrantedReport.new(entry["name"], entry["producer"], options.is_a?(Hash) ? options : {})
    end

    def one_of(fields, key, allowed)
      value = fields[key]
      garbage("#{key} #{value.inspect} is none of #{allowed.join(", ")}") unless allowed.include?(value)
      value
    end

    def number(fields, key, least)
      value = fields[key]
      garbage("#{key} #{value.inspect} is not a number from #{least}") unless value.is_a?(Numeric) && value >= least
      value.to_f
    end

    def garbage(what)
      raise Problem.new(:garbage, "`diagctl acquire` gave an answer that cannot be used: #{what}")
    end
  end
end
