# frozen_string_literal: true

module Diagctl
  class Reports
    # jemalloc's own statistics. Worker; inline, well under a millisecond.
    #
    # @api private
    class JemallocStats
      # J is JSON; a, x, e and h leave out single arenas, mutexes, extents and huge-page shards. That makes 17 kB instead of
      # hundreds. The merged bins stay, because they show fragmentation.
      DEFAULT_OPTIONS = "Jdaxeh"

      def call(io, options)
        letters = options.fetch("options", DEFAULT_OPTIONS)
        unless letters.is_a?(String) && letters.match?(/\A[A-Za-z]*\z/)
          raise Unavailable, "options #{letters.inspect} are not letters for malloc_stats_print, like #{DEFAULT_OPTIONS.inspect}"
        end
        raise Unavailable, "fiddle cannot be loaded; without it jemalloc cannot be called" unless Libc.load

        print = JemallocStats.function
        raise Unavailable, "jemalloc is not loaded in this process (hint: LD_PRELOAD=libjemalloc.so.2)" if print.nil?

        io.write(collect(print, letters))
      end

      # Holds the GVL. jemalloc before 5.3 calls back for every few bytes, and each call would queue behind the application's
      # threads.
      def self.function
        Libc.function("malloc_stats_print", [Fiddle::TYPE_VOIDP] * 3, Fiddle::TYPE_VOID, need_gvl: true)
      end

      private

      def collect(print, letters)
        text = +"".b
        # A local variable keeps the closure alive for as long as the call.
        closure = Fiddle::Closure::BlockCaller.new(Fiddle::TYPE_VOID, [Fiddle::TYPE_VOIDP] * 2) do |_opaque, chunk|
          text << chunk.to_s
        end
        print.call(closure, nil, letters)
        text
      end
    end
  end
end
