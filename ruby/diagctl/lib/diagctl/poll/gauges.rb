# frozen_string_literal: true

module Diagctl
  # Reads the gauges before a poll: those of Ruby's garbage collector, of the Puma and Sidekiq plugins, and of the application.
  # Poll thread, or the caller of Diagctl.capture. The application's blocks run on a thread of diagctl's (Callback).
  #
  # @api private
  class Gauges
    # GC.stat with one key allocates nothing.
    BUILT_IN = {
      "gc.count" => -> { GC.count },
      "gc.major_count" => -> { GC.stat(:major_gc_count) },
      "gc.heap_live_slots" => -> { GC.stat(:heap_live_slots) },
      "gc.old_objects" => -> { GC.stat(:old_objects) }
    }.freeze

    def initialize(config, log, adapters)
      @config = config
      @log = log
      @adapters = adapters
    end

    # A gauge without a value is left out. A rule on it then reports that the gauge could not be read.
    #
    # @return [Hash{String=>Numeric}]
    def read_all
      own = BUILT_IN.merge(@adapters.gauges).to_h { |name, block| [name, read(name) { block.call }] }
      application = @config.gauges.to_h do |name, block|
        [name, read(name) { Callback.call("gauge #{name}", @config.callback_timeout, &block) }]
      end
      @adapters.counts.reduce(own) { |all, counts| all.merge(counts.call) }.merge(application).compact
    end

    private

    def read(name)
      value = yield
      return if value.nil?
      if value.is_a?(Numeric) && value.real? && value.to_f.finite?
        return value.is_a?(Integer) ? value : value.to_f
      end

      @log.warn_once([:gauge, name], "gauge #{name} returned #{describe(value)}, which is not a finite number")
      nil
    rescue StandardError => e
      message = e.is_a?(Unavailable) ? e.message : "gauge #{name} raised #{e.class}: #{e.message}"
      @log.warn_once([:gauge, name], message)
      nil
    end

    # Never calls `inspect` on an object of the application: that may run a query, or reveal a name.
    def describe(value)
      return "an object of #{value.class}" unless value.is_a?(Numeric) || value.is_a?(String)

      Diagctl.one_line(value.inspect, 60)
    end
  end
end
