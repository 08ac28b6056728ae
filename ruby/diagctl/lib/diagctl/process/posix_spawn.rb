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
    WORD = [0].pack("J").bytesize

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
        check(@init.call(actions.to_i), "posix_spawn_file_actions_init")
        begin
          highest = 0
          descriptors.each do |number, io|
            highest = number if number > highest
            check(@dup2.call(actions.to_i, io.fileno, number), "posix_spawn_file_actions_adddup2")
          end
          # Closes what a C extension opened without O_CLOEXEC (glibc 2.34 and later).
          @closefrom&.call(actions.to_i, highest + 1)
          spawn(argv, unset, actions)
        ensure
          @destroy.call(actions.to_i)
        end
      end

      private

      def load_functions
        # Addresses as integers: for a pointer type Fiddle would make an object for each argument.
        pointer = Fiddle::TYPE_INTPTR_T
        int = Fiddle::TYPE_INT
        @init = Libc.function("posix_spawn_file_actions_init", [pointer], int, need_gvl: true)
        @dup2 = Libc.function("posix_spawn_file_actions_adddup2", [pointer, int, int], int, need_gvl: true)
        @destroy = Libc.function("posix_spawn_file_actions_destroy", [pointer], int, need_gvl: true)
        @spawn = Libc.function("posix_spawn", [pointer] * 6, int)
        @closefrom = Libc.function("posix_spawn_file_actions_addclosefrom_np", [pointer, int], int, need_gvl: true)
        # These hold the GVL, so that no other thread changes the environment meanwhile.
        @strncmp = Libc.function("strncmp", [pointer, pointer, Fiddle::TYPE_SIZE_T], int, need_gvl: true)
        @memcpy = Libc.function("memcpy", [pointer, pointer, Fiddle::TYPE_SIZE_T], Fiddle::TYPE_LONG, need_gvl: true)
        @environ = Libc.symbol("environ")
        [@init, @dup2, @destroy, @spawn, @strncmp, @memcpy, @environ].all?
      end

      def spawn(argv, unset, actions)
        # The pid, and a place for one pointer.
        result = Libc.memory("\0" * WORD)
        arguments = StringTable.new(argv)
        environment = environment_without(unset, result)
        error = @spawn.call(result.to_i, arguments.first, actions.to_i, 0, arguments.table, environment.to_i)
        raise SystemCallError.new(argv.first, error) unless error.zero?

        result[0, Fiddle::SIZEOF_INT].unpack1("i")
      end

      # The addresses of the C library's own strings, so that their bytes never enter the Ruby heap. Most processes have none of the
      # variables, and the program gets the table as it is.
      #
      # @return [#to_i]
      def environment_without(unset, place)
        table = at(@environ, place)
        return table if table.zero? || unset.none? { |name| ENV.key?(name) }

        names = Libc.memory(unset.map { |name| "#{name}=\0" }.join)
        addresses = []
        until (entry = at(table + (addresses.size * WORD), place)).zero?
          addresses << entry
        end
        Libc.memory([*addresses.reject { |one| unset?(one, unset, names) }, 0].pack("J*"))
      end

      def unset?(entry, unset, names)
        offset = 0
        unset.any? do |name|
          length = name.bytesize + 1
          found = @strncmp.call(entry, names.to_i + offset, length).zero?
          offset += length + 1
          found
        end
      end

      # The pointer at an address. (A Fiddle::Pointer for each would count the environment as its own memory.)
      def at(address, place)
        @memcpy.call(place.to_i, address, WORD)
        place[0, WORD].unpack1("J")
      end

      def check(error, what)
        raise SystemCallError.new(what, error) unless error.zero?
      end
    end

    # Copies the arguments to memory outside the Ruby heap. The addresses of Ruby strings would change with GC.compact, which
    # can run during the call, because the call releases the GVL.
    class StringTable
      # @return [Integer] address of the `char *[]`; of its first string
      attr_reader :table, :first

      # Makes few objects, whatever the number of strings: those of a dumper are in its dump.
      def initialize(strings)
        strings = strings.map { |string| string.b.delete("\0") } unless strings.all? { |string| StringTable.plain?(string) }
        bytes = strings.pack("Z*" * strings.size)
        size = (strings.size + 1) * WORD
        # The pointers, and behind them the strings.
        @memory = Fiddle::Pointer.malloc(size + bytes.bytesize, Fiddle::RUBY_FREE)
        @table = @memory.to_i
        address = @first = @table + size
        pointers = strings.map { |string| (address += string.bytesize + 1) - string.bytesize - 1 }
        @memory[0, size] = pointers.push(0).pack("J*")
        @memory[size, bytes.bytesize] = bytes
      end

      # @return [Boolean] whether the bytes are an argument as they are
      def self.plain?(string)
        string.encoding.ascii_compatible? && !string.include?("\0")
      end
    end
  end
end
