# frozen_string_literal: true

require_relative "helper"

# Makes one report in this process.
module Reporting
  include Sandbox

  def report(name, options = {})
    StringIO.new.tap { |io| Diagctl::Reports.new(@config).fetch(name).call(io, options) }.string
  end
end
