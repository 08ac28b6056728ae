# frozen_string_literal: true

module Diagctl
  class Reports
    # How many objects of what kind there are, and their size, by type and by class.
    # Forked dumper; in the worker only where a rule says `snapshot = "in_process"`.
    class ObjectCounts
      # Unbound, because an application's class may define `name` or `superclass` as it likes.
      NAME_OF = Module.instance_method(:name)
      SUPERCLASS_OF = Class.instance_method(:superclass)
      SINGLETON = Module.instance_method(:singleton_class?)

      def call(io, _options)
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

      # @return [Array(Hash, Hash)] number and size by the class that the VM has noted in the object
      #
      # Allocates nothing per object: the dumper runs without garbage collection, and a heap dump that follows would
      # show it. So singleton classes are counted as they are met, and resolved afterwards. (`Kernel#class`, which a
      # BasicObject has only through `bind_call`, leaves a method entry or two on the heap at every call.)
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

      # @return [Class, nil] nil for what wraps an object of the VM's own, which has no class to be named
      def real(type)
        return unless Class === type

        type = SUPERCLASS_OF.bind_call(type) while SINGLETON.bind_call(type)
        type
      end

      def name(type)
        return "(internal)" if type.nil?

        NAME_OF.bind_call(type) || "#<anonymous Class>"
      end
    end
  end
end
