# frozen_string_literal: true

module Diagctl
  class Reports
    # Every object of the heap, one JSON line each, as `ObjectSpace.dump_all` writes it.
    # Forked dumper; in the worker only where a rule says `snapshot = "in_process"`.
    class HeapDump
      def call(io, options)
        # Never `output: :string`: that is the whole dump in memory.
        ObjectSpace.dump_all(output: io, full: options["full"] ? true : false)
      end
    end
  end
end
