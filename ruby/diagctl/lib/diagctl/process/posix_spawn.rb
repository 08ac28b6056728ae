# frozen_string_literal: true

module Diagctl
  # posix_spawn(3). The C library creates the child with CLONE_VFORK, so a process of any size starts a program in a fraction of a
  # millisecond. It avoids two costs of Ruby's Process.spawn. As root, that does a full fork (63 to 130 ms at 1.5 GB, while every
  # thread stands still). And as any user it makes Ruby strings of the whole environment when one variable is left out, so every
  # secret in it would appear in the next heap dump.
  #
  # Worker and forked dumper. Only posix_spawn itself releases the GVL. The other functions return at once, and getting the GVL
  # back takes 100 ms while another thread is computing.
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
      # @param unset [Array<String>] environment variables that the program does not get
      # @param descriptors [Hash{Integer=>IO}] number in the program => open IO here, ascending. No IO may have a number that an
      #   earlier entry has already replaced
      # @return [Integer] pid
      # @raise [SystemCallError]
      def call(argv, unset, descriptors)
        actions = Fiddle::Pointer.malloc(FILE_ACTIONS_BYTES, Fiddle::RUBY_FREE)
        check(@init.call(actions), "posix_spawn_file_actions_init")
        begin
          descriptors.each do |number, io|
            check(@dup2.call(actions, io.fileno, number), "posix_spawn_file_actions_adddup2")
          end
          # Closes what a C extension opened without O_CLOEXEC (glibc 2.34 and later).
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
        # Holds the GVL, so that no other thread changes the environment meanwhile.
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

      # The addresses of the C library's own strings, so that their bytes never enter the Ruby heap.
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

    # Copies the arguments to memory outside the Ruby heap. The addresses of Ruby strings would change with GC.compact, which
    # can run during the call, because the call releases the GVL.
    class StringTable
      # @return [Fiddle::Pointer] the `char *[]`; its first string
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
