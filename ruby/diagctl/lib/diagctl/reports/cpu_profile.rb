# frozen_string_literal: true

module Diagctl
  class Reports
    # Where the process spends its time, looked at for some seconds by the profiler that the application brings: vernier
    # (all threads, as a Firefox profile) or else stackprof (CPU time, as its JSON, which speedscope.app reads).
    # Worker: the poll thread, which sleeps meanwhile and lets no other poll through. The last of the inline reports.
    #
    # Nothing is loaded here: a `require` looks for its file in directory after directory and lets go of the GVL for each. Where
    # another thread computes, each time it gets it back 100 ms later: that was 84 s for a gem that is not there.
    class CpuProfile
      # By gem, in the order of preference. Not Vernier alone: Bundler loads its version file for a gem from git.
      PROFILERS = { "vernier" => "Vernier::Collector", "stackprof" => "StackProf" }.freeze
      DURATION = 10.0
      LONGEST = 60.0
      # Of CPU time: 100 samples a second of one busy thread.
      INTERVAL_MICROSECONDS = 10_000
      BUSY = "a profile is under way in this process"
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

      # At boot, before the host serves: what the bundle holds (or `gem` activated) and nobody has required, as is usual for
      # stackprof. Half a millisecond and a third of a megabyte.
      def self.load_profilers
        PROFILERS.each do |name, constant|
          require name if Gem.loaded_specs.key?(name) && !Object.const_defined?(constant)
        rescue StandardError, ScriptError
          next # It does not run here, or --disable-gems. The report will say that it is missing.
        end
      end

      private

      # There is one handler of SIGPROF a process. vernier would replace one that is there, and its own ends the process at a
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

      # There is one timer and one signal a process: whoever uses them keeps them.
      def stackprof(io, seconds)
        raise Unavailable, "#{BUSY}: stackprof runs" if ::StackProf.running?
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

      # Not by Signal.trap, which would set one.
      def profiling_signal_taken?
        caught = File.read("/proc/self/status")[/^SigCgt:\s+(\h+)/, 1].to_i(16)
        caught.anybits?(1 << (Signal.list.fetch("PROF") - 1))
      end
    end
  end
end
