# frozen_string_literal: true

module Diagctl
  class Reports
    # What the garbage collector counts. Worker; inline.
    class GcStat
      # Slots up to which counting objects by type is a matter of milliseconds: it visits every slot with the GVL held
      # (about 2 ns each), unlike everything else here. Beyond, `object_counts` has the figures, from a forked child.
      COUNTABLE = 5_000_000

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
          count_objects: (ObjectSpace.count_objects if GC.stat(:heap_available_slots) <= COUNTABLE),
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
