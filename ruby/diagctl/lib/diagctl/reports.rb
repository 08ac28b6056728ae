# frozen_string_literal: true

module Diagctl
  # Every report that this process can make, by name. A report is anything with `call(io, options)`.
  # Filled at boot, read by the poll thread and by the forked dumper.
  #
  # @api private
  class Reports
    # Loaded by `load` and not by `require "diagctl"`.
    BUILT_IN = {
      "gc_stat" => :GcStat,
      "jemalloc_stats" => :JemallocStats,
      "malloc_info" => :MallocInfo,
      "threads" => :Threads,
      "ruby" => :Ruby,
      "heap_dump" => :HeapDump,
      "object_counts" => :ObjectCounts,
      "jemalloc_profile" => :JemallocProfile,
      "cpu_profile" => :CpuProfile,
      # Registered by the adapters; the names are taken, so that an application cannot shadow them.
      "puma" => nil,
      "sidekiq" => nil
    }.freeze

    LOADING = Mutex.new
    private_constant :LOADING

    # Loads the libraries that diagctl needs, all of them default gems: in the process that polls, and after the
    # application's bundle. In a Puma master, or before the bundle, the versions that it activates would be the wrong ones.
    #
    # Before any fork of a dumper: a `require` in there would read files, and could wait for a lock that a thread of the
    # worker held at the fork. And where possible before the host serves: among busy threads a `require` takes seconds (see
    # CpuProfile).
    def self.load
      LOADING.synchronize do
        next if @loaded

        %w[etc io/nonblock json objspace rbconfig stringio].each { |library| require library }
        Libc.load
        PosixSpawn.available?
        BUILT_IN.each { |name, constant| require_relative "reports/#{name}" if constant }
        CpuProfile.load_profilers
        @loaded = true
      end
    end

    def initialize(config)
      @config = config
      @adapters = {}
    end

    # For a plugin of diagctl's own (Puma, Sidekiq).
    def register(name, report)
      @adapters = @adapters.merge(name => report)
    end

    # @return [#call]
    # @raise [Unavailable]
    def fetch(name)
      custom = @config.reports[name]
      return Custom.new(name, custom, @config.callback_timeout) if custom

      constant = BUILT_IN[name]
      @adapters[name] || (constant && Reports.const_get(constant).new) ||
        raise(Unavailable, "not available in this process")
    end

    # A report of the application's. Its block writes to memory and under a deadline, wherever it runs.
    class Custom
      def initialize(name, block, timeout)
        @name = name
        @block = block
        @timeout = timeout
      end

      def call(io, _options)
        # An own buffer: a block that comes back too late must not write into something already handed over.
        buffer = StringIO.new(String.new(encoding: Encoding::BINARY))
        Callback.call("report #{@name}", @timeout) { @block.call(buffer) }
        io.write(buffer.string)
      end
    end
  end
end
