# frozen_string_literal: true

module Diagctl
  class Reports
    # jemalloc's heap profile (`prof.dump`): a sample of the memory in use by allocation stack, for jeprof. Worker; inline, some
    # milliseconds.
    #
    # @api private
    class JemallocProfile
      HINT = "(hint: start the process with MALLOC_CONF=prof:true,lg_prof_sample:19)"

      def call(io, _options)
        raise Unavailable, "fiddle cannot be loaded; without it jemalloc cannot be called" unless Libc.load

        @mallctl = JemallocProfile.function
        raise Unavailable, "jemalloc is not loaded in this process (hint: LD_PRELOAD=libjemalloc.so.2)" if @mallctl.nil?
        raise Unavailable, "this jemalloc was built without --enable-prof" unless enabled?("config.prof")
        raise Unavailable, "profiling is off in this process #{HINT}" unless enabled?("opt.prof")

        io.write(dump)
      end

      # Releases the GVL, so that the application's threads run while jemalloc writes the profile.
      def self.function
        Libc.function("mallctl", [Fiddle::TYPE_VOIDP] * 4 + [Fiddle::TYPE_SIZE_T], Fiddle::TYPE_INT)
      end

      private

      def enabled?(name)
        value = Fiddle::Pointer.malloc(1, Fiddle::RUBY_FREE)
        size = Fiddle::Pointer.malloc(Fiddle::SIZEOF_SIZE_T, Fiddle::RUBY_FREE)
        size[0, Fiddle::SIZEOF_SIZE_T] = [1].pack("J")
        @mallctl.call(name, value.to_i, size.to_i, 0, 0).zero? && value[0, 1] != "\0"
      end

      # jemalloc writes to a path only. This is the path of a file in memory, so nothing reaches the disk.
      def dump
        file = Libc.memory_file("jemalloc") or raise Unavailable, "a file in memory cannot be created (memfd_create)"
        path = Libc.memory("/proc/self/fd/#{file.fileno}\0")
        argument = Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
        argument[0, Fiddle::SIZEOF_VOIDP] = [path.to_i].pack("J")
        error = @mallctl.call("prof.dump", 0, 0, argument.to_i, Fiddle::SIZEOF_VOIDP)
        raise Unavailable, "prof.dump failed: #{SystemCallError.new(nil, error).message}" unless error.zero?

        file.rewind
        file.read
      ensure
        file&.close
      end
    end
  end
end
