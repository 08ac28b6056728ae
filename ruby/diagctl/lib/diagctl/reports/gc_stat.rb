# frozen_string_literal: true

module Diagctl
  class Reports
    # The garbage collector's own counters. Worker; inline. Objects by type are in `object_counts`, made by the forked dumper:
    # counting them visits every slot while it holds the GVL (8 ns each, 13 ms for a heap of 0.9 GB).
    #
    # @api private
    class GcStat
      def call(io, _options)
        io.write(JSON.generate(data))
      end

      private

      def data
        {
          count: GC.count,
          stat: GC.stat,
          # By size pool. Meaningful from Ruby 3.2 on.
          stat_heap: (GC.stat_heap if GC.respond_to?(:stat_heap)),
          latest_gc_info: GC.latest_gc_info,
          # Sizes of a page and of a slot, without which the counts are no bytes.
          constants: (GC::INTERNAL_CONSTANTS if defined?(GC::INTERNAL_CONSTANTS)),
          config: config
        }.compact
      end

      def config
        {
          stress: GC.stress,
          auto_compact: (GC.auto_compact if GC.respond_to?(:auto_compact)),
          measure_total_time: (GC.measure_total_time if GC.respond_to?(:measure_total_time)),
          gc: (GC.config if GC.respond_to?(:config))
        }.compact
      rescue NotImplementedError
        {}
      end
    end
  end
end
