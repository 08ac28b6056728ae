# frozen_string_literal: true

module E2E
  # A reader of heap graphs, written from docs/heap-graph.md and independent of crates/heapdump. It keeps everything in memory and
  # checks no checksum.
  class HeapGraph
    MAGIC = "\x89RHEAP\n\0".b
    PRODUCERS = { 1 => "walker", 2 => "dump_all" }.freeze
    TYPES = { "OBJECT" => 1, "CLASS" => 2, "MODULE" => 3, "FLOAT" => 4, "STRING" => 5, "REGEXP" => 6, "ARRAY" => 7, "HASH" => 8,
              "STRUCT" => 9, "BIGNUM" => 10, "FILE" => 11, "DATA" => 12, "MATCH" => 13, "COMPLEX" => 14, "RATIONAL" => 15,
              "SYMBOL" => 20, "IMEMO" => 26, "NODE" => 27, "ICLASS" => 28, "ZOMBIE" => 29 }.freeze
    FLAGS = %w[wb_protected old uncollectible marking marked pinned remembered shareable object_id frozen embedded shared fstring
               chilled singleton broken too_complex_shape repaired hashed sized].freeze
    STRING = 5

    HeapObject = Struct.new(:address, :type, :class_address, :size, :slot_size, :flags, :name, :length, :hash, :encoding, :site,
                            :generation, :edges, keyword_init: true)

    attr_reader :header, :names, :objects, :roots, :pages, :free, :stats, :trailer

    def self.graph?(data) = data.b.start_with?(MAGIC)

    def initialize(data)
      raise "no graph" unless HeapGraph.graph?(data)

      @names, @classes, @sites = [nil], [nil], [nil]
      @objects, @roots, @pages, @free, @stats = {}, [], [], [], {}
      position = 12
      while position < data.bytesize
        length, kind = data.byteslice(position, 6).unpack("VS<")
        block(kind, data.byteslice(position + 16, length).unpack("C*"))
        position += 16 + length
      end
    end

    def producer = PRODUCERS[@header[1]&.first]

    # @return [Array<String>] names of the flags that are set
    def self.flags(bits) = FLAGS.each_index.select { |bit| bits[bit] == 1 }.map { |bit| FLAGS[bit] }

    private

    def block(kind, bytes)
      @bytes, @at = bytes, 0
      case kind
      when 1 then @header = repeat { [varint, take(varint)] }.to_h
      when 2 then table(@names) { [take(1).first, take(varint).pack("C*")] }
      when 3 then chained = 0; table(@classes) { chained += zigzag }
      when 4 then table(@sites) { [@names[varint], varint, @names[varint], @names[varint]] }
      when 5 then read_objects
      when 6 then chained = 0; @roots.concat(repeat { [@names[varint].last, @names[varint]&.last, (chained += zigzag) * unit] })
      when 7 then chained = 0; @free.concat(repeat { [(chained += zigzag) * unit, varint, varint] })
      when 8 then chained = 0; @pages.concat(repeat { [(chained += zigzag) * unit, varint, varint, varint] })
      when 9 then @stats.update(repeat { [@names[varint].last, varint] }.to_h)
      when 255 then @trailer = repeat { [varint, varint] }.to_h
      end
    end

    def unit = 1 << @header[5].first

    def varint
      value = shift = 0
      loop do
        byte = @bytes.fetch(@at)
        @at += 1
        value |= (byte & 0x7f) << shift
        return value if byte < 0x80

        shift += 7
      end
    end

    def zigzag = (value = varint) && ((value >> 1) ^ -(value & 1))

    def take(count) = @bytes[@at, count].tap { @at += count }

    def repeat = [].tap { |all| all << yield while @at < @bytes.size }

    def table(entries)
      first = varint
      repeat { yield }.each_with_index { |entry, index| entries[first + index] = entry }
    end

    def column(columns, id)
      @bytes, @at = columns.fetch(id, []), 0
      yield
    end

    def numbers(columns, id) = column(columns, id) { repeat { varint } }

    def read_objects
      count, continued = varint, varint
      source = varint if continued.positive?
      columns = repeat { [varint, take(varint)] }.to_h
      address = 0
      found = column(columns, 1) { repeat { HeapObject.new(address: address += zigzag, edges: []) } }
      classes = read_classes(columns, found)
      fill(columns, found)
      read_edges(columns, found, classes, continued, source)
      found.each { |object| object.address *= unit }
      raise "#{count} objects, but #{found.size}" unless count == found.size

      found.each { |object| @objects[object.address] = object }
      @last = found.last || @last
    end

    def read_classes(columns, found)
      values = numbers(columns, 3)
      stray = column(columns, 4) { repeat { zigzag } }
      found.each_with_index do |object, index|
        value = values.fetch(index, 0)
        object.class_address = { 0 => 0, 1 => nil }.fetch(value) { @classes[value - 1] * unit } ||
          (object.address + stray.shift) * unit
      end
      values
    end

    def fill(columns, found)
      types, sizes, flags, names, sites = columns.fetch(2, []), *[5, 7, 11, 15].map { |id| numbers(columns, id) }
      slots = numbers(columns, 6).each_slice(2).flat_map { |run, size| [size] * run }
      lengths, encodings = numbers(columns, 12), numbers(columns, 14)
      hashes = columns.fetch(13, []).each_slice(@header[6].first)
      generation = 0
      generations = column(columns, 16) { repeat { generation += zigzag } }
      found.each_with_index do |object, index|
        object.type, object.size, object.slot_size = types.fetch(index, 0), sizes.fetch(index, 0), slots.fetch(index, 0)
        object.flags = HeapGraph.flags(flags.fetch(index, 0))
        object.name = @names[names.fetch(index, 0)]&.last
        object.length = lengths.shift if object.flags.delete("sized")
        object.hash = hashes.next if object.flags.delete("hashed")
        object.encoding = @names[encodings.shift || 0]&.last if object.type == STRING
        object.site = @sites[sites.fetch(index, 0)]
        object.generation = generations.shift if object.site
      end
    end

    def read_edges(columns, found, classes, continued, source)
      counts, labels, predictions = numbers(columns, 8), numbers(columns, 10), [0] * 1024
      column(columns, 9) do
        next_edge = lambda do |from, place|
          distance = predictions[place] + zigzag
          distance = (distance + 2**63) % 2**64 - 2**63
          predictions[place] = distance
          [(from + distance) * unit, @names[labels.shift || 0]]
        end
        continued.times { @last.edges << next_edge.call(source, 15) }
        found.each_with_index do |object, index|
          base = 16 * (classes.fetch(index, 0) + object.type)
          counts.fetch(index, 0).times { |number| object.edges << next_edge.call(object.address, (base + [number, 15].min) % 1024) }
        end
      end
    end
  end
end
