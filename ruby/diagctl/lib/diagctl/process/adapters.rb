# frozen_string_literal: true

module Diagctl
  # Additions of diagctl's own plugins in this process: versions for the metadata, cheap gauges, a report.
  # Filled at boot, on whatever thread boots; read by the poll thread.
  #
  # @api private
  class Adapters
    attr_reader :reports, :versions, :gauges

    def initialize(config)
      @reports = Reports.new(config)
      @versions = { "ruby" => RUBY_VERSION, "diagctl_gem" => VERSION }
      @gauges = {}
    end

    # @param gauges [Hash{String=>#call}] called directly on the poll thread, so they must not block
    # @param reports [Hash{String=>#call}]
    def add(name, version:, gauges: {}, reports: {})
      @versions = @versions.merge(name => version)
      @gauges = @gauges.merge(gauges)
      reports.each { |report, maker| @reports.register(report, maker) }
    end
  end
end
