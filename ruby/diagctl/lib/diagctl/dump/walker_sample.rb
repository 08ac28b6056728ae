# frozen_string_literal: true

module Diagctl
  # A sample of objects, and what Ruby itself says of them: the heap walker compares it with what it reads. In words, in the order
  # that crates/heapwalk/src/request.rs expects.
  #
  # Made in the walker's process, on its only thread. All that it refers to stays in `@keep` until the process ends.
  #
  # @api private
  class WalkerSample
    TYPES = { "OBJECT" => 1, "CLASS" => 2, "MODULE" => 3, "FLOAT" => 4, "STRING" => 5, "REGEXP" => 6, "ARRAY" => 7, "HASH" => 8,
              "STRUCT" => 9, "BIGNUM" => 10, "FILE" => 11, "DATA" => 12, "MATCH" => 13, "COMPLEX" => 14, "RATIONAL" => 15,
              "SYMBOL" => 20 }.freeze
    GC_FLAGS = %w[wb_protected old uncollectible marking marked pinned].each_with_index.to_h.freeze
    FLAGS = { "frozen" => 9, "embedded" => 10, "shared" => 11, "fstring" => 12, "chilled" => 13, "singleton" => 14 }.freeze
    # The flags that `ObjectSpace.dump` names for all versions, by type. It names "frozen" for all.
    FLAGS_OF = { "STRING" => %w[embedded shared fstring chilled], "ARRAY" => %w[embedded shared],
                 "CLASS" => %w[singleton], "MODULE" => %w[singleton] }.freeze
    NO_LENGTH = 2**64 - 1

    KEYS = Thread.instance_method(:keys)
    TO_S = Thread.instance_method(:to_s)
    NAME = Thread.instance_method(:name)

    # Without a Fiddle::Pointer, which would be in the dump, with a false size.
    #
    # @return [Integer] address of the string's bytes
    def self.bytes_of(string)
      [string].pack("p").unpack1("J")
    end

    # @param threads [Hash{Thread=>String}] threads of the worker with their stacks (see ThreadStacks); this process has only one of them,
    #   but all their variables
    # @param whole [Boolean] false for facts without a sample, of which few objects are in the heap
    # @param bytes [Boolean] false for facts without strings in every layout
    def initialize(threads, whole, bytes)
      @words = []
      @keep = []
      place_bytes if bytes
      if whole
        describe_objects
        name_edges
        trace
      end
      threads.each_key { |thread| tell(thread) }
      statistics(GC.stat.select { |_, value| value.is_a?(Integer) })
      threads.each { |thread, stack| add(8, address(thread), stack.bytesize / 8, *stack.unpack("J*")) unless stack.empty? }
    end

    # @return [String] the facts, packed
    def pack
      @words.pack("J*")
    end

    private

    def add(*words)
      @words.concat(words)
    end

    def address(object)
      @keep << object
      Fiddle.dlwrap(object)
    end

    # @return [Array(Integer, Integer)] address and length of the bytes
    def text(string)
      @keep << string
      [WalkerSample.bytes_of(string), string.bytesize]
    end

    # The names of its variables, and where its block is. Its own name is a value of the application.
    def tell(thread)
      KEYS.bind_call(thread).each { |name| add(6, address(thread), Fiddle.dlwrap(name)) }
      # "#<Thread:0x00007f1b2c0d5f28@name file:line status>". With few objects: they are in the dump.
      told = TO_S.bind_call(thread).force_encoding(Encoding::BINARY)
      own = Fiddle.dlwrap(thread).to_s(16)
      from = told.index(own) + own.bytesize
      name = NAME.bind_call(thread)
      from += 1 + name.bytesize if name
      to = told.rindex(" ")
      add(7, address(thread), text(told).first + from + 1, to - from - 1) if to > from
    rescue EncodingError
      # The name cannot be put together with the file.
    end

    # With few objects, whatever the number of names.
    def statistics(values)
      names = values.keys.map!(&:name)
      @keep << names
      names.pack("p" * names.size).unpack("J*").each_with_index do |place, index|
        @words << 5 << place << names[index].bytesize << values.fetch(names[index].to_sym)
      end
    end

    def describe_objects
      variables = Object.new.tap { |object| object.instance_variable_set(:@first, [object]) }
      complex = [1e-300, 2**80, 3r / 7, Complex(1, 2), 1..9, /pattern/, "text".match(/e/), proc {}, [1].each, Mutex.new]
      strings = ["short", "long" * 60, ("root" * 60)[8..], "bytes\xff".b, "\u00e9t\u00e9", :"dynamic #{object_id}", +""]
      containers = [[], [1, "two"], Array.new(50) { |i| i.to_s }, {}, { a: "one", "b" => [2] }, Array.new(40) { |i| [i, []] }.to_h]
      # None that a method is called on meanwhile: the caches of calls are part of a class.
      classes = [FloatDomainError, Comparable, Class.new(FloatDomainError), Object.new.singleton_class]
      [variables, *complex, *strings, *containers, *classes, $stderr].each { |object| describe(object) }
    end

    def describe(object)
      address(object)
      told = JSON.parse(ObjectSpace.dump(object))
      type = told.fetch("type")
      own = told["class"]
      known = FLAGS.slice("frozen", *FLAGS_OF[type])
      set = GC_FLAGS.slice(*told["flags"]&.keys).values + known.select { |key, _| told[key] }.values
      references = told.fetch("references", []) - [own]
      add(1, told.fetch("address").hex, TYPES.fetch(type), own.to_s.hex, told.fetch("memsize", 0), bits(set),
        bits(GC_FLAGS.values + known.values), told["bytesize"] || told["length"] || told["size"] || NO_LENGTH,
        *text(told["name"] || told["struct"] || ""), references.size, *references.map(&:hex))
    end

    def bits(numbers)
      numbers.sum { |number| 1 << number }
    end

    def name_edges
      target = Object.new
      object = Object.new.tap { |it| it.instance_variable_set(:@known, target) }
      generic = [].tap { |it| it.instance_variable_set(:@known, target) }
      scope = Class.new.tap do |it|
        it.const_set(:KNOWN, target)
        it.class_variable_set(:@@known, target)
        it.instance_variable_set(:@known, target)
        # Still there when the walker has looked: nothing loads it.
        it.autoload(:Missing, "/nonexistent/diagctl")
      end
      struct = Class.new(Struct.new(:first, :known)).new(nil, target)
      { object => "@known", generic => "@known", scope => "KNOWN", struct => "known", { known: target } => "known" }
        .merge({ one: [target], "two" => "three" }.tap { |it| it.default = target } => "default")
        .compare_by_identity.each { |from, name| edge(from, target, name) }
      %w[@@known @known].each { |name| edge(scope, target, name) }
      edge(Class.new(String), String, "superclass")
    end

    def edge(from, to, name)
      add(2, address(from), address(to), *text(name))
    end

    # Strings that have their bytes in every possible place.
    def place_bytes
      root = "bytes that another string uses, too, " * 9
      ["short", root.dup, root[5..], "long" * 60, +""].each do |string|
        add(3, address(string), *text(string), ObjectSpace.dump(string).include?('"shared":true') ? 1 : 0)
      end
    end

    # Only while the application traces allocations.
    def trace
      object = Object.new
      file = ObjectSpace.allocation_sourcefile(object) or return
      add(4, address(object), *text(file), ObjectSpace.allocation_sourceline(object),
        ObjectSpace.allocation_generation(object))
    end
  end
end
