# frozen_string_literal: true

module Diagctl
  # C functions that Ruby has no method for, called through Fiddle. All are optional: without Fiddle (a bundled gem from Ruby 4.0
  # on) or without the symbol, the caller continues without the function.
  #
  # Worker and forked dumper. `load` is called in the worker before any fork, so that the child only calls.
  #
  # @api private
  module Libc
    PR_SET_PDEATHSIG = 1
    PR_SET_DUMPABLE = 4
    MFD_CLOEXEC = 1
    IOPRIO_WHO_PROCESS = 1
    IOPRIO_IDLE = 3 << 13
    # ioprio_set(2) has no wrapper in any C library, so its number is needed for each architecture.
    IOPRIO_SET = { "x86_64" => 251, "aarch64" => 30, "arm64" => 30 }.freeze
    # The same number on all architectures that Ruby supports, as for all system calls since Linux 5.1.
    PIDFD_SEND_SIGNAL = 424
    PIDFD_OPEN = 434
    PIDFD_SIGNAL_PROCESS_GROUP = 4
    P_PID = 1
    WITHOUT_REAPING = 0x01000005 # WNOHANG | WEXITED | WNOWAIT
    SIGINFO_BYTES = 128
    F_GETFD = 1
    SIG_BLOCK = 0
    SIG_UNBLOCK = 1
    SIG_SETMASK = 2
    # Size in glibc and musl. The kernel reads the first eight bytes.
    SIGSET_BYTES = 128
    ALL_SIGNALS = (1..64).to_a.freeze
    # Blocking these signals does not prevent the death of the process, but it would suppress Ruby's crash report.
    FAULTS = Signal.list.values_at("SEGV", "BUS", "ILL", "FPE", "ABRT", "TRAP", "SYS").freeze
    SIGKILL = Signal.list.fetch("KILL")
    NONE = [].freeze
    MASKED = (ALL_SIGNALS - FAULTS).freeze
    WORD_BITS = [0].pack("J").bytesize * 8
    WORD_BYTES = 8

    @functions = {}
    # Made once: the objects of the dumper are in its dump.
    @names = {}
    @signal_sets = {}

    class << self
      # @return [Boolean] whether Fiddle is available
      def load
        return @loaded unless @loaded.nil?

        require "fiddle"
        @loaded = true
        int = Fiddle::TYPE_INT
        long = Fiddle::TYPE_LONG
        # Addresses as integers: for a pointer type Fiddle would make an object for each argument.
        pointer = Fiddle::TYPE_INTPTR_T
        # None of these blocks, so they keep the GVL. Releasing it would cost 100 ms each time while another thread is computing.
        { "alarm" => [[int], int], "prctl" => [[int, long, long, long, long], int], "syscall" => [[long] * 5, long],
          "memfd_create" => [[pointer, int], int], "fcntl" => [[int, int, int], int], "dup2" => [[int, int], int], "waitid" => [[int, int, pointer, int], int],
          "sched_getcpu" => [[], int], "sched_setaffinity" => [[int, long, pointer], int],
          "pthread_sigmask" => [[int, pointer, pointer], int], "memcpy" => [[pointer, pointer, long], pointer] }
          .each { |name, (arguments, result)| function(name, arguments, result, need_gvl: true) }
        true
      rescue LoadError
        @loaded = false
      end

      # @return [Fiddle::Function, nil]
      def function(name, arguments, result, **options)
        return unless load

        @functions.fetch(name) do
          address = symbol(name)
          @functions[name] = address && Fiddle::Function.new(address, arguments, result, name: name, **options)
        end
      end

      # A copy of these bytes outside the Ruby heap, freed with the object. Pass `to_i` to functions: for a string or a pointer Fiddle
      # makes more pointers, which show up in a heap dump with the size of what they point to.
      #
      # @return [Fiddle::Pointer]
      def memory(bytes)
        Fiddle::Pointer.malloc(bytes.bytesize, Fiddle::RUBY_FREE).tap { |pointer| pointer[0, bytes.bytesize] = bytes }
      end

      # @return [Integer] the word at an address
      def word_at(address)
        @word ||= memory("\0" * WORD_BYTES)
        @functions.fetch("memcpy").call(@word.to_i, address, WORD_BYTES)
        @word[0, WORD_BYTES].unpack1("J")
      end

      # Searches RTLD_DEFAULT. Handle.sym would miss a preloaded library (jemalloc), which is in the global scope only.
      def symbol(name)
        Fiddle::Handle::DEFAULT[name] if load
      rescue Fiddle::DLError
        nil
      end

      def alarm(seconds)
        @functions["alarm"]&.call(seconds.ceil)
      end

      def undumpable
        @functions["prctl"]&.call(PR_SET_DUMPABLE, 0, 0, 0, 0)
      end

      # The kernel kills this process when the thread that forked it ends.
      def end_with_parent
        @functions["prctl"]&.call(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
      end

      def idle_io
        number = IOPRIO_SET[RbConfig::CONFIG["host_cpu"]]
        @functions["syscall"]&.call(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE, 0) if number
      end

      # Pins this process, and the programs that it starts, to the processor that it is running on.
      def stay_on_this_cpu
        cpu = @functions["sched_getcpu"]&.call
        return unless cpu&.>=(0)

        words = Array.new(cpu / WORD_BITS + 1, 0)
        words[-1] = 1 << cpu % WORD_BITS
        mask = memory(words.pack("J*"))
        @functions["sched_setaffinity"]&.call(0, mask.size, mask.to_i)
      end

      # Runs the block with all signals blocked on this thread, so that none interrupts its system calls: neither those that the
      # application traps, nor the SIGVTALRM with which Ruby wakes a thread. Other threads still receive the process's signals.
      #
      # @param except [Array<Integer>] signals that stay unblocked
      def without_signals(except: NONE)
        return yield unless load

        before = memory("\0" * SIGSET_BYTES)
        set = signal_set(MASKED, except)
        masked = @functions["pthread_sigmask"]&.call(SIG_BLOCK, set.to_i, before.to_i)&.zero?
        yield
      ensure
        @functions["pthread_sigmask"]&.call(SIG_SETMASK, before.to_i, 0) if masked
      end

      # Makes what the dumper will need of the two above.
      #
      # @param signals [Array<Integer>] that it will unblock, or leave unblocked
      def prepare_signal_sets(signals)
        return unless load

        signal_set(signals)
        signal_set(MASKED, signals)
      end

      def unblock(signals)
        set = signal_set(signals) if load
        @functions["pthread_sigmask"]&.call(SIG_UNBLOCK, set.to_i, 0)
      end

      # @return [IO, nil] closed on exec
      def pidfd_open(pid)
        descriptor = @functions["syscall"]&.call(PIDFD_OPEN, pid, 0, 0, 0)
        IO.for_fd(descriptor, "r") if descriptor&.>=(0)
      end

      # @return [Integer] 0, or -1 when the signal could not be sent
      def pidfd_send_signal(descriptor, signal, flags = 0)
        @functions["syscall"]&.call(PIDFD_SEND_SIGNAL, descriptor, signal, 0, flags)
      end

      # @return [Boolean] whether a child has ended and can be reaped; false also when that cannot be determined
      def ended?(pid)
        siginfo = memory("\0" * SIGINFO_BYTES) if load
        @functions["waitid"]&.call(P_PID, pid, siginfo.to_i, WITHOUT_REAPING)&.zero? && siginfo[0, 4].unpack1("l") != 0
      end

      # Makes a number stand for the same file as another descriptor.
      #
      # @return [Boolean] whether it does
      def dup2(descriptor, number)
        @functions["dup2"]&.call(descriptor, number) == number
      end

      # @return [Boolean] whether this number is an open descriptor; true when that cannot be determined
      def open?(descriptor)
        fcntl = @functions["fcntl"]
        fcntl.nil? || !fcntl.call(descriptor, F_GETFD, 0).negative?
      end

      # @return [File, nil] an anonymous file in memory, closed on exec
      def memory_file(name)
        text = (@names[name] ||= memory("#{name}\0")) if load
        descriptor = @functions["memfd_create"]&.call(text.to_i, MFD_CLOEXEC)
        File.for_fd(descriptor, "r+") if descriptor&.>=(0)
      end

      private

      def signal_set(numbers, except = NONE)
        by_exception = (@signal_sets[numbers] ||= {})
        by_exception[except] ||= make_signal_set(numbers, except)
      end

      def make_signal_set(numbers, except)
        bits = "0" * (SIGSET_BYTES * 8)
        numbers.each { |number| bits.setbyte(number - 1, 49) }
        except.each { |number| bits.setbyte(number - 1, 48) }
        memory([bits].pack("b*"))
      end
    end
  end
end
