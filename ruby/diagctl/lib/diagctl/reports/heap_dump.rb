# frozen_string_literal: true

module Diagctl
  class Reports
    # Every object of the heap: as a heap graph by the walker, or, where that cannot be used, as one line of JSON for each object as
    # `ObjectSpace.dump_all` writes it. Forked dumper; in the worker only when a rule sets `snapshot = "in_process"`.
    #
    # @api private
    class HeapDump
      # @return [Boolean] whether the walker is wanted
      def walks?(options)
        options["producer"] != "dump_all" && options["values"] != "all"
      end

      # @param walker [Walker, nil] nil in the worker
      def call(io, options, walker = nil)
        return if walker && walks?(options) && walker.walk(io, Walker::GRAPH)

        # Never `output: :string`, which would hold the whole dump in memory.
        ObjectSpace.dump_all(output: io, full: options["full"] ? true : false)
      end
    end
  end
end
