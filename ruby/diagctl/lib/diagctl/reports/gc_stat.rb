# frozen_string_literal: true

module Diagctl
  class Reports
    # What the garbage collector counts by itself. Worker; inline. Objects by type are in `object_counts`, from a forked
    # child: counting them visits every slot with the GVL held (8 ns each: 13 ms of a heap of 0.9 GB).
    class GcStat
      def call(io, _options)
        io.write(JSON.generate(data))
      end

      private

      def data
        {
          count: GC.count,
          stat: GC.stat,
          # Per size pool, from Ruby 3.2 on with numbers that mean something.
          stat_heap: (GC.stat_heap if GC.respond_to?(:stat_heap)),
          latest_gc_info: GC.latest_gc_info,
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
