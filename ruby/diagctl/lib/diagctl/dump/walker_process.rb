# frozen_string_literal: true

require "rbconfig"

module Diagctl
  # The process that walks the heap: waits for its order, loads the walker, which is nowhere else, and calls it once.
  # Forked by the dumper (see Walk), on its only thread.
  #
  # @api private
  class WalkerProcess
    # The number of words of `Request` in crates/heapwalk/src/request.rs.
    WORDS = 14
    LAYOUT_SHIFT = 8
    # For tests: a fault in the middle of the walk, and the number of objects before it.
    FAULT = [0, 0].freeze
    OBJSPACE = "/objspace.#{RbConfig::CONFIG["DLEXT"]}".freeze
    WAITING = "diagctl: waiting to walk the heap"
    TITLE = "diagctl: walking the heap"

    # The key under which a walker that crashed once is remembered. Made before any fork: the objects of a dumper are in its dump.
    #
    # @return [String] this Ruby, to the very file
    def self.ruby
      @ruby ||= Diagctl.one_line(description).freeze
    end

    def self.description
      files = [RbConfig.ruby, File.join(RbConfig::CONFIG["libdir"], RbConfig::CONFIG["LIBRUBY_SO"].to_s)]
      marks = files.select { |file| File.file?(file) }.map { |file| File.stat(file) }.map { |stat| "#{stat.size}.#{stat.mtime.to_i}" }
      [RUBY_DESCRIPTION, *marks].join(" ")
    end
    private_class_method :description

    # @param object [File] the walker, a file in memory
    # @param status [File] the page that the dumper watches
    # @param threads [Hash{Thread=>String}] threads of the worker with their stacks (see ThreadStacks)
    def initialize(object, status, threads)
      @threads = threads
      @dumper = Process.pid
      @object = object
      @status = status
    end

    # Never returns.
    #
    # @param orders [IO] tells the mode and the layout, a byte each
    # @param close [Array<IO>] descriptors that are the dumper's alone
    def run(orders, io, close)
      isolate(close)
      mode = orders.getbyte
      layout = orders.getbyte or exit!(1)
      Process.setproctitle(TITLE)
      exit!(prepare(io, mode, layout).call)
    rescue Exception => e # rubocop:disable Lint/RescueException
      explain("#{e.class}: #{e.message}")
    ensure
      exit!(1)
    end

    # Loads the walker.
    #
    # @param layout [Integer] what the proof found, or 0
    # @return [Proc] walks the heap; returns 0 if everything was written
    def prepare(io, mode, layout = 0)
      library = Fiddle.dlopen("/proc/self/fd/#{@object.fileno}")
      function = Fiddle::Function.new(library["diagctl_heapwalk"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_INT, need_gvl: true)
      packed = request(io, mode, layout)
      -> { function.call(packed) }
    end

    private

    def isolate(close)
      Libc.end_with_parent
      # It may have ended before.
      exit!(1) unless Process.ppid == @dumper
      close.each(&:close)
      # If Ruby finds itself broken, it prints thousands of lines.
      null = File.open(File::NULL, "r+")
      IO.for_fd(2, autoclose: false).reopen(null)
      Process.setproctitle(WAITING)
      GC.disable
    end

    # @return [Integer] address of the request, whose parts live as long as this object
    def request(io, mode, layout)
      @facts = WalkerSample.new(@threads, mode & Walker::PROVEN == 0, layout.zero?).pack
      facts, version, platform = [@facts, RUBY_VERSION, RUBY_PLATFORM].pack("p3").unpack("J3")
      @packed = [WORDS, Libc.symbol("dlsym"), allocation_lookup, io.fileno, @status.fileno, mode | layout << LAYOUT_SHIFT,
        facts, @facts.bytesize / 8, version, RUBY_VERSION.bytesize, platform, RUBY_PLATFORM.bytesize, FAULT[0], FAULT[1]].pack("J*")
      WalkerSample.bytes_of(@packed)
    end

    # @return [Integer] 0 unless allocations are traced
    def allocation_lookup
      return 0 unless ObjectSpace.allocation_sourcefile(Object.new)

      file = $LOADED_FEATURES.find { |feature| feature.end_with?(OBJSPACE) }
      (@objspace = Fiddle.dlopen(file))["objspace_lookup_allocation_info"]
    rescue Fiddle::DLError
      0
    end

    # In the form of `Status` in crates/heapwalk/src/status.rs.
    def explain(reason)
      reason = reason.byteslice(0, 1024)
      @status.pwrite([Walker::GAVE_UP, 0, 0, 0, reason.bytesize].pack("Q5") + reason.b, 0)
    end
  end
end
