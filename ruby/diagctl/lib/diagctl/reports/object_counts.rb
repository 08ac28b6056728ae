# frozen_string_literal: true

module Diagctl
  class Reports
    # Number and size of the objects of the heap, by type and by class, counted by the walker or with Ruby's own means.
    # Forked dumper; in the worker only when a rule sets `snapshot = "in_process"`.
    #
    # @api private
    class ObjectCounts
      # Unbound methods, because a class of the application may override `name` or `superclass`.
      NAME_OF = Module.instance_method(:name)
      SUPERCLASS_OF = Class.instance_method(:superclass)
      # The name of a constant, as in crates/heapdump/src/class_name.rs. `set_temporary_name` takes any text.
      FROM_CODE = /\A(?:fatal|Complex::compatible|(?:#<\p{Upper}\w*(?:::\p{Upper}\w*)*:0x\h+>::)?\p{Upper}[[:word:]]*(?:::\p{Upper}[[:word:]]*)*)\z/
      SINGLETON = Module.instance_method(:singleton_class?)

      # @return [Boolean] whether the walker is wanted
      def walks?(options)
        options["producer"] != "dump_all"
      end

      # @param walker [Walker, nil] nil in the worker
      def call(io, options, walker = nil)
        return if walker && walks?(options) && walker.walk(io, Walker::COUNTS)

        classes = by_class
        io.write(JSON.generate(
          count_objects: ObjectSpace.count_objects,
          count_objects_size: ObjectSpace.count_objects_size,
          memsize_of_all: ObjectSpace.memsize_of_all,
          classes: classes
        ))
      end

      private

      # @return [Array<Hash>] by size, largest first
      def by_class
        totals = Hash.new { |hash, type| hash[type] = [0, 0] }.compare_by_identity
        counts, sizes = walk
        counts.each do |type, count|
          total = totals[real(type)]
          total[0] += count
          total[1] += sizes[type]
        end
        rows = totals.map { |type, (count, memsize)| { class: name(type), count: count, memsize: memsize } }
        rows.sort_by { |row| [-row[:memsize], row[:class]] }
      end

      # Counts objects by the class that the VM has stored in them.
      #
      # Allocates nothing per object: the dumper runs without garbage collection, and such objects would show in a later heap dump.
      # Therefore singleton classes are counted as they are, and resolved afterwards. (`Kernel#class`, which a BasicObject has only
      # through `bind_call`, leaves a method entry or two on the heap per call.)
      #
      # @return [Array(Hash, Hash)] number and size by class
      def walk
        counts = Hash.new(0).compare_by_identity
        sizes = Hash.new(0).compare_by_identity
        ObjectSpace.each_object do |object|
          type = ObjectSpace.internal_class_of(object)
          counts[type] += 1
          sizes[type] += ObjectSpace.memsize_of(object)
        end
        [counts, sizes]
      end

      # @return [Class, nil] nil for a wrapper of an internal VM object, whose class has no name
      def real(type)
        return unless Class === type

        type = SUPERCLASS_OF.bind_call(type) while SINGLETON.bind_call(type)
        type
      end

      def name(type)
        return "(internal)" if type.nil?

        given = NAME_OF.bind_call(type)
        FROM_CODE.match?(given) ? given : "#<anonymous Class>"
      end
    end
  end
end
