# frozen_string_literal: true

module Diagctl
  class Reports
    # Every object of the heap as one line of JSON, as `ObjectSpace.dump_all` writes it.
    # Forked dumper; in the worker only when a rule sets `snapshot = "in_process"`.
    #
    # @api private
    class HeapDump
      def call(io, options)
        # Never `output: :string`, which would hold the whole dump in memory.
        ObjectSpace.dump_all(output: io, full: options["full"] ? true : false)
      end
    end
  end
end
