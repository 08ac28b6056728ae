# frozen_string_literal: true

module Diagctl
  class Reports
    # How many objects of what kind there are, and their size, by type and by class.
    # Forked dumper; in the worker only where a rule says `snapshot = "in_process"`.
    class ObjectCounts
      # Unbound, because an application's class may define `class` or `name` as it likes (or be a BasicObject).
      CLASS_OF = Kernel.instance_method(:class)
      NAME_OF = Module.instance_method(:name)

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
        counts = Hash.new(0).compare_by_identity
        sizes = Hash.new(0).compare_by_identity
        ObjectSpace.each_object do |object|
          type = CLASS_OF.bind_call(object)
          counts[type] += 1
          sizes[type] += ObjectSpace.memsize_of(object)
        end
        rows = counts.map { |type, count| { class: name(type), count: count, memsize: sizes[type] } }
        rows.sort_by { |row| [-row[:memsize], row[:class]] }
      end

      def name(type)
        NAME_OF.bind_call(type) || "#<anonymous #{NAME_OF.bind_call(CLASS_OF.bind_call(type))}>"
      end
    end
  end
end
