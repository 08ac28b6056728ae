# frozen_string_literal: true

module Diagctl
  # The one place where files from outside these gems are required. `require "diagctl"` loads none of them: a process that forks
  # others (a Puma master, a Sidekiq swarm, Resque) must neither load nor activate a gem. Otherwise a child whose bundle has
  # another version of that gem could not boot, and a phased restart could not bring in a new version.
  #
  # Called in the process that polls, after its bundle is set up: by `Diagctl.start`, or by the poll thread when the application is
  # loaded later.
  #
  # @api private
  module Runtime
    # Any version of these works, also the old one of a bundle that is never updated.
    LIBRARIES = %w[json stringio io/nonblock etc objspace rbconfig].freeze

    @mutex = Mutex.new
    @loaded = false

    def self.loaded?
      @loaded
    end

    # Runs before any fork: a `require` in the dumper would read files, and could wait for a lock that a thread of the worker
    # held at the fork. If possible it also runs before the application serves: among busy threads a `require` takes seconds
    # (see CpuProfile).
    #
    # @raise [LoadError]
    def self.load
      return if @loaded

      @mutex.synchronize do
        next if @loaded

        LIBRARIES.each { |library| require library }
        require_relative "../reports/buffer" # needs StringIO
        Reports.load
        Libc.load
        PosixSpawn.available?
        Holder.prepare
        rehearse
        Reports::CpuProfile.load_profilers
        @loaded = true
      end
    end

    # Runs what the dumper will run and what changes nothing here. A line of code that runs for the first time makes objects (caches
    # of calls and constants), and those of the dumper would be in its dump.
    def self.rehearse
      WalkerProcess.ruby
      Libc.without_signals { Libc.memory_file("rehearsal")&.close }
      Libc.prepare_signal_sets(CaptureWriter::ENDING)
      Isolation.rehearse
      Holder.write(File::NULL, Process.pid)
      WalkerSample.new({ Thread.current => "" }, false, false).pack if Libc.load
      ThreadStacks.collect([Thread.main])
      Records.new.tap { |records| records.set("rehearsal", 1) }.to_s
    end
    private_class_method :rehearse
  end
end
