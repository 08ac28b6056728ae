# frozen_string_literal: true

require "stringio"
require "zlib"

module E2E
  # A reader of profiles in the format of pprof (github.com/google/pprof, proto/profile.proto), independent of crates/heapdump.
  class Pprof
    SAMPLE_TYPE = 1
    SAMPLE = 2
    FUNCTION = 5
    STRING = 6

    def initialize(data)
      @fields = fields(Zlib::GzipReader.new(StringIO.new(data)).read)
    end

    # @return [Array<String>]
    def sample_types = all(SAMPLE_TYPE).map { |type| string(type.fetch(1).first) }

    # @return [Array<Integer>] sums over all samples
    def totals = all(SAMPLE).map { |sample| packed(sample.fetch(2)) }.transpose.map(&:sum)

    # @return [Array<String>] names
    def functions = all(FUNCTION).map { |function| string(function.fetch(2).first) }

    # @return [Array<String>] names before they were made readable
    def system_names = all(FUNCTION).flat_map { |function| function.fetch(3, []) }

    private

    def all(number) = @fields.fetch(number).map { |message| fields(message) }

    def string(index) = @fields.fetch(STRING).fetch(index).dup.force_encoding("UTF-8")

    # A repeated number is one field with all of them, or one field each.
    def packed(values) = values.flat_map { |value| value.is_a?(String) ? numbers(value) : value }

    def numbers(bytes)
      io = StringIO.new(bytes)
      [].tap { |all| all << varint(io) until io.eof? }
    end

    def fields(message)
      io = StringIO.new(message)
      found = Hash.new { |all, number| all[number] = [] }
      until io.eof?
        key = varint(io)
        found[key >> 3] << (key & 7 == 2 ? io.read(varint(io)) : varint(io))
      end
      found
    end

    def varint(io)
      value = shift = 0
      loop do
        byte = io.readbyte
        value |= (byte & 0x7f) << shift
        return value if byte < 0x80

        shift += 7
      end
    end
  end
end
