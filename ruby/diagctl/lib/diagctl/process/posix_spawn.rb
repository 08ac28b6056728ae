# frozen_string_literal: true

module Diagctl
  # posix_spawn(3): the C library creates the child with CLONE_VFORK, so a process of any size spawns in a fraction of
  # a millisecond. Ruby's Process.spawn has two costs that this avoids: for root it forks in full (63 to 130 ms at
  # 1.5 GB, with every thread standing still), and for any user it makes Ruby strings of the whole environment when
  # one variable is to be left out, so that every secret in it would be found in the next heap dump.
  #
  # Worker and forked dumper. Fiddle lets go of the GVL during posix_spawn itself only: the other functions are done at
  # once, and each would get it back 100 ms later where another thread computes.
  #
  # @api private
  module PosixSpawn
    # glibc and musl need 80 bytes for posix_spawn_file_actions_t.
    FILE_ACTIONS_BYTES = 256

    class << self
      def available?
        return @available unless @available.nil?

        @available = Libc.load && load_functions
      end

      # @param argv [Array<String>] argv[0] is an absolute path
      # @param unset [Array<String>] environment variables that the child does not get
      # @param descriptors [Hash{Integer=>IO}] number in the child => open IO here; ascending, and no source may be
      #   a number that an earlier entry already wrote
      # @return [Integer] pid
      # @raise [SystemCallError]
      def call(argv, unset, descriptors)
        actions = Fiddle::Pointer.malloc(FILE_ACTIONS_BYTES, Fiddle::RUBY_FREE)
        check(@init.call(actions), "posix_spawn_file_actions_init")
        begin
          descriptors.each do |number, io|
            check(@dup2.call(actions, io.fileno, number), "posix_spawn_file_actions_adddup2")
          end
          # What a C extension opened without O_CLOEXEC must not live on in a child (glibc 2.34 and later).
          @closefrom&.call(actions, descriptors.keys.max + 1)
          spawn(argv, unset, actions)
        ensure
          @destroy.call(actions)
        end
      end

      private

      def load_functions
        pointer = Fiddle::TYPE_VOIDP
        int = Fiddle::TYPE_INT
        @init = Libc.function("posix_spawn_file_actions_init", [pointer], int, need_gvl: true)
        @dup2 = Libc.function("posix_spawn_file_actions_adddup2", [pointer, int, int], int, need_gvl: true)
        @destroy = Libc.function("posix_spawn_file_actions_destroy", [pointer], int, need_gvl: true)
        @spawn = Libc.function("posix_spawn", [pointer] * 6, int)
        @closefrom = Libc.function("posix_spawn_file_actions_addclosefrom_np", [pointer, int], int, need_gvl: true)
        # With the GVL held, so that no other thread changes the environment while it is walked.
        @strncmp = Libc.function("strncmp", [pointer, pointer, Fiddle::TYPE_SIZE_T], int, need_gvl: true)
        @environ = Libc.symbol("environ")
        [@init, @dup2, @destroy, @spawn, @strncmp, @environ].all?
      end

      def spawn(argv, unset, actions)
        pid = Fiddle::Pointer.malloc(Fiddle::SIZEOF_INT, Fiddle::RUBY_FREE)
        arguments = StringTable.new(argv)
        environment = environment_without(unset)
        error = @spawn.call(pid, arguments.first, actions, nil, arguments.table, environment)
        raise SystemCallError.new(argv.first, error) unless error.zero?

        pid[0, Fiddle::SIZEOF_INT].unpack1("i")
      end

      # The addresses of the C library's own strings: their bytes never enter the Ruby heap.
      def environment_without(unset)
        addresses = []
        slot = Fiddle::Pointer.new(@environ).ptr
        until slot.null? || (entry = slot.ptr).null?
          addresses << entry.to_i unless unset.any? { |name| @strncmp.call(entry, "#{name}=", name.bytesize + 1).zero? }
          slot += Fiddle::SIZEOF_VOIDP
        end
        PosixSpawn.pointers(addresses)
      end

      def check(error, what)
        raise SystemCallError.new(what, error) unless error.zero?
      end
    end

    # @return [Fiddle::Pointer] a NULL-terminated `char *[]`
    def self.pointers(addresses)
      packed = [*addresses, 0].pack("J*")
      Fiddle::Pointer.malloc(packed.bytesize, Fiddle::RUBY_FREE).tap { |table| table[0, packed.bytesize] = packed }
    end

    # Arguments in memory of their own: the addresses of Ruby strings would move under GC.compact, which can run while
    # the call is made without the GVL.
    class StringTable
      # @return [Fiddle::Pointer] `char *[]`; the first string
      attr_reader :table, :first

      def initialize(strings)
        bytes = strings.map { |string| string.b.delete("\0") << "\0" }
        @first = Fiddle::Pointer.malloc(bytes.sum(&:bytesize), Fiddle::RUBY_FREE)
        @first[0, bytes.sum(&:bytesize)] = bytes.join
        offsets = bytes.each_with_object([0]) { |string, all| all << (all.last + string.bytesize) }
        @table = PosixSpawn.pointers(offsets.first(bytes.size).map { |offset| @first.to_i + offset })
      end
    end
  end
end
