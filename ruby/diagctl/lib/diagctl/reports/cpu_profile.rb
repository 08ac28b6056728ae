# frozen_string_literal: true

module Diagctl
  class Reports
    # Profiles the process for some seconds with the profiler that the application brings: vernier (all threads, as a Firefox
    # profile) or else stackprof (CPU time, as JSON for speedscope.app).
    # Worker: the poll thread, which sleeps meanwhile and blocks other polls. Always the last inline report.
    #
    # Nothing is loaded here. A `require` searches directory after directory and releases the GVL each time. When another thread is
    # computing, getting it back takes 100 ms each time: 84 s in all for a gem that does not exist.
    #
    # @api private
    class CpuProfile
      # Gem => constant, in order of preference. `Vernier` alone is not enough: for a gem from git Bundler loads its version file.
      PROFILERS = { "vernier" => "Vernier::Collector", "stackprof" => "StackProf" }.freeze
      DURATION = 10.0
      LONGEST = 60.0
      # CPU time: 100 samples a second of one busy thread.
      INTERVAL_MICROSECONDS = 10_000
      BUSY = "a profile is already running in this process"
      MISSING = "neither vernier nor stackprof is loaded in this process (hint: add one of them to the Gemfile)"

      def call(io, options)
        seconds = options.fetch("duration", DURATION)
        unless seconds.is_a?(Numeric) && seconds.positive? && seconds <= LONGEST
          raise Unavailable, "duration #{seconds.inspect} is not a number of seconds up to #{format("%g", LONGEST)}"
        end

        profiler, = PROFILERS.find { |_, constant| Object.const_defined?(constant) }
        raise Unavailable, MISSING unless profiler

        send(profiler, io, seconds)
      end

      # Loads the profilers that the bundle holds, or that `gem` activated, but nobody has required, as is usual for stackprof.
      # Called at boot, before the application serves. Takes half a millisecond and a third of a megabyte.
      def self.load_profilers
        PROFILERS.each do |name, constant|
          require name if Gem.loaded_specs.key?(name) && !Object.const_defined?(constant)
        rescue StandardError, ScriptError
          next # The profiler does not run here, or --disable-gems. The report will say that it is missing.
        end
      end

      private

      # A process has one SIGPROF handler. vernier would replace an existing one, and its own handler ends the process on a
      # signal that another profiler's timer sent.
      def vernier(io, seconds)
        raise Unavailable, "#{BUSY}: SIGPROF has a handler" if profiling_signal_taken?

        collector = ::Vernier::Collector.new(:wall)
        collector.start
        begin
          sleep seconds
        ensure
          result = collector.stop
        end
        io.write(::Vernier::Output::Firefox.new(result).output)
      end

      # A process has one profiling timer and one signal. An application that uses them keeps them.
      def stackprof(io, seconds)
        raise Unavailable, "#{BUSY}: stackprof is running" if ::StackProf.running?
        raise Unavailable, "#{BUSY}: SIGPROF has a handler" if profiling_signal_taken?
        raise Unavailable, BUSY unless ::StackProf.start(mode: :cpu, interval: INTERVAL_MICROSECONDS, raw: true)

        begin
          sleep seconds
        ensure
          ::StackProf.stop
        end
        results = ::StackProf.results
        raise Unavailable, "the application took the results of this profile" if results.nil?

        io.write(JSON.generate(results))
      end

      # Does not use Signal.trap, which would install a handler.
      def profiling_signal_taken?
        caught = File.read("/proc/self/status")[/^SigCgt:\s+(\h+)/, 1].to_i(16)
        caught.anybits?(1 << (Signal.list.fetch("PROF") - 1))
      end
    end
  end
end
