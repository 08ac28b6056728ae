# frozen_string_literal: true

module Diagctl
  class Reports
    # Every object of the heap without its references, which `diagctl put` counts by class, type, allocation site and generation. Only
    # those counts are stored. Where the walker cannot be used, `ObjectSpace.dump_all` writes the objects.
    # Forked dumper; in the worker only when a rule sets `snapshot = "in_process"`.
    #
    # @api private
    class HeapSummary
      # @return [Boolean] whether the walker is wanted
      def walks?(options)
        options["producer"] != "dump_all"
      end

      # @param walker [Walker, nil] nil in the worker
      def call(io, options, walker = nil)
        return if walker && walks?(options) && walker.walk(io, Walker::OBJECTS)

        # Never `output: :string`, which would hold the whole dump in memory.
        ObjectSpace.dump_all(output: io, full: false)
      end
    end
  end
end
