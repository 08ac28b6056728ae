# frozen_string_literal: true

module Diagctl
  # Permission to make one capture, with everything needed to carry it out.
  # Read on the poll thread or by the caller of Diagctl.capture; the forked dumper has a copy.
  #
  # @api private
  class Grant
    ID = /\A[0-9A-Za-z][0-9A-Za-z._-]{0,99}\z/

    # A report to make: `producer` is "inline" (in the worker) or "snapshot" (in the dumper).
    GrantedReport = Struct.new(:name, :producer, :options) do
      def snapshot?
        producer == "snapshot"
      end
    end

    # @!attribute [r] rule
    #   @return [String] name of the rule, for the log
    # @!attribute [r] capture
    #   @return [String] id of the capture
    # @!attribute [r] reports
    #   @return [Array<GrantedReport>] in the order in which they are to be made
    # @!attribute [r] snapshot
    #   @return [String] "fork" or "in_process": where snapshot reports are made
    # @!attribute [r] deadline
    #   @return [Float] seconds for the dump
    # @!attribute [r] watch
    #   @return [Array<Hash>] memory limits to watch while the dumper runs, see Headroom
    attr_reader :rule, :capture, :reports, :snapshot, :deadline, :watch

    # @param fields [Fields]
    # @raise [Problem]
    def initialize(fields)
      @fields = fields
      @rule = fields["rule"]
      @capture = checked_capture
      @snapshot = fields.one_of("snapshot", %w[fork in_process])
      @deadline = fields.number("deadline", 1)
      @reports = checked_reports
      @watch = checked_watch
    end

    private

    def checked_capture
      id = @fields["capture"]
      @fields.reject("capture #{id.inspect} is not an id") unless id.is_a?(String) && ID.match?(id)
      id
    end

    def checked_reports
      list = @fields["reports"]
      @fields.reject("reports is not a list") unless list.is_a?(Array)
      list.map { |entry| granted_report(entry) }
    end

    def granted_report(entry)
      valid = entry.is_a?(Hash) && entry["name"].is_a?(String) && %w[inline snapshot].include?(entry["producer"])
      @fields.reject("a report is #{Diagctl.one_line(entry.inspect, 80)}") unless valid
      options = entry["options"]
      GrantedReport.new(entry["name"], entry["producer"], options.is_a?(Hash) ? options : {})
    end

    # Headroom checks the keys, and skips a kind of limit that it does not know.
    def checked_watch
      list = @fields.fetch("watch", [])
      valid = list.is_a?(Array) && list.all? do |limit|
        limit.is_a?(Hash) && limit.all? { |_, value| value.is_a?(String) || (value.is_a?(Integer) && value >= 0) }
      end
      @fields.reject("watch is #{Diagctl.one_line(list.inspect, 80)}") unless valid
      list
    end
  end
end
