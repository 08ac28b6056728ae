# frozen_string_literal: true

module Diagctl
  # Additions of diagctl's own plugins in this process: versions for the metadata, cheap gauges, a report.
  # Filled at boot, on whatever thread boots; read by the poll thread.
  #
  # @api private
  class Adapters
    attr_reader :reports, :versions, :gauges, :counts

    # @param counts [Array<#call>] as those of `add`
    def initialize(config, counts: [])
      @reports = Reports.new(config)
      @versions = { "ruby" => RUBY_VERSION, "diagctl_gem" => VERSION }
      @gauges = {}
      @counts = counts
    end

    # @param gauges [Hash{String=>#call}] called directly on the poll thread, so they must not block
    # @param reports [Hash{String=>#call}]
    # @param counts [#call, nil] returns more gauges, whose names are not known beforehand
    def add(name, version:, gauges: {}, reports: {}, counts: nil)
      @versions = @versions.merge(name => version)
      @counts += [counts] if counts
      @gauges = @gauges.merge(gauges)
      reports.each { |report, maker| @reports.register(report, maker) }
    end
  end
end
