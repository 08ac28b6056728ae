# frozen_string_literal: true

module Diagctl
  # Everything that is required from outside these gems, in one place and not by `require "diagctl"`: a process that forks
  # others (a Puma master, a Sidekiq swarm, Resque) must neither load nor activate a gem. A child whose bundle names another
  # version of it could not boot, and a phased restart could not bring one in.
  #
  # In the process that polls, after its bundle: by `Diagctl.start`, or by the poll thread where the application is loaded later.
  #
  # @api private
  module Runtime
    # Plain versions of all of these will do, also those that a bundle has held back for years.
    LIBRARIES = %w[json stringio io/nonblock etc objspace rbconfig].freeze

    @mutex = Mutex.new
    @loaded = false

    def self.loaded?
      @loaded
    end

    # Before any fork: a `require` in the dumper would read files, and could wait for a lock that a thread of the worker held at
    # the fork. And before the host serves, where that can be: among busy threads a `require` takes seconds (see CpuProfile).
    #
    # @raise [LoadError]
    def self.load
      return if @loaded

      @mutex.synchronize do
        next if @loaded

        LIBRARIES.each { |library| require library }
        Reports.load
        Libc.load
        PosixSpawn.available?
        Reports::CpuProfile.load_profilers
        @loaded = true
      end
    end
  end
end
