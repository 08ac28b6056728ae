# frozen_string_literal: true

module Diagctl
  class Reports
    # glibc's description of its arenas, as XML: malloc_info(3). Worker; inline.
    #
    # @api private
    class MallocInfo
      def call(io, _options)
        raise Unavailable, "fiddle cannot be loaded; without it the C library cannot be called" unless Libc.load
        # With another allocator glibc's arenas are almost empty, and the report would be misleading.
        other = MallocInfo.other_allocator
        raise Unavailable, "this process uses #{other}" if other

        functions = MallocInfo.functions
        raise Unavailable, "this C library has no malloc_info; only glibc has it" unless functions.all?

        io.write(collect(*functions))
      end

      # A symbol of each allocator that is known by name.
      OTHERS = { "malloc_stats_print" => "jemalloc", "tc_version" => "tcmalloc", "mi_version" => "mimalloc" }.freeze
      NOTHING = "instead of glibc's allocator"

      # @return [String, nil] what stands in the place of the C library's allocator, and what to do
      def self.other_allocator
        _, name = OTHERS.find { |symbol, _| Libc.symbol(symbol) }
        return "jemalloc #{NOTHING}; see jemalloc_stats" if name == "jemalloc"
        return "#{name} #{NOTHING}, and malloc_info knows nothing of it" if name

        "another allocator #{NOTHING}, and malloc_info knows nothing of it" if Libc.symbol("malloc") != Fiddle.dlopen("libc.so.6")["malloc"]
      rescue Fiddle::DLError
        nil # Not glibc.
      end

      # @return [Array<Fiddle::Function, nil>]
      def self.functions
        pointer = Fiddle::TYPE_VOIDP
        int = Fiddle::TYPE_INT
        [
          Libc.function("open_memstream", [pointer, pointer], pointer),
          Libc.function("malloc_info", [int, pointer], int),
          Libc.function("fclose", [pointer], int),
          Libc.function("free", [pointer], Fiddle::TYPE_VOID)
        ]
      end

      private

      def collect(open_memstream, malloc_info, fclose, free)
        # char *buffer and size_t size; fclose sets both.
        slots = Fiddle::Pointer.malloc(2 * Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
        stream = open_memstream.call(slots.to_i, slots.to_i + Fiddle::SIZEOF_VOIDP)
        raise Unavailable, "open_memstream failed" if stream.null?

        status = malloc_info.call(0, stream.to_i)
        fclose.call(stream.to_i)
        address, size = slots[0, 2 * Fiddle::SIZEOF_VOIDP].unpack("JJ")
        text = Fiddle::Pointer.new(address)[0, size]
        free.call(address)
        raise Unavailable, "malloc_info failed" unless status.zero?

        text
      end
    end
  end
end
