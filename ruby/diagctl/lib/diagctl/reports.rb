# frozen_string_literal: true

module Diagctl
  # The reports that this process can make, by name. A report is any object with `call(io, options)`.
  # Filled at boot; read by the poll thread and by the forked dumper.
  #
  # @api private
  class Reports
    # Loaded by `Reports.load`, not by `require "diagctl"`.
    BUILT_IN = {
      "gc_stat" => :GcStat,
      "jemalloc_stats" => :JemallocStats,
      "malloc_info" => :MallocInfo,
      "threads" => :Threads,
      "ruby" => :Ruby,
      "heap_dump" => :HeapDump,
      "object_counts" => :ObjectCounts,
      "heap_summary" => :HeapSummary,
      "jemalloc_profile" => :JemallocProfile,
      "cpu_profile" => :CpuProfile,
      # Registered by the plugins. Reserved here, so that an application cannot define a report of that name.
      "puma" => nil,
      "sidekiq" => nil
    }.freeze

    # Loads files of this gem only. A parent may call it before it forks, so that its children share the code (see Runtime).
    def self.load
      BUILT_IN.each { |name, constant| require_relative "reports/#{name}" if constant }
    end

    def initialize(config)
      @config = config
      @adapters = {}
    end

    # For diagctl's own plugins (Puma, Sidekiq).
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

    # A report of the application. Its block writes to memory and has a deadline, wherever it runs.
    class Custom
      def initialize(name, block, timeout)
        @name = name
        @block = block
        @timeout = timeout
      end

      def call(io, options)
        # A separate buffer: a block that returns late must not write into an IO that is already in use elsewhere.
        buffer = Buffer.new(options["max_size"])
        spent = Callback.call("report #{@name}", @timeout) do
          started = Clock.thread_cpu
          @block.call(buffer)
          Clock.thread_cpu - started
        end
        io.foreign_cpu += spent if io.respond_to?(:foreign_cpu)
        io.write(buffer.string)
      end
    end
  end
end
