# frozen_string_literal: true

module Diagctl
  class Reports
    # Where the process spends its time, looked at for some seconds by the profiler that the application brings: vernier
    # (all threads, as a Firefox profile) or else stackprof (CPU time, as its JSON, which speedscope.app reads).
    # Worker: the poll thread, which sleeps meanwhile and lets no other poll through. The last of the inline reports.
    class CpuProfile
      DURATION = 10.0
      LONGEST = 60.0
      # Of CPU time: 100 samples a second of one busy thread.
      INTERVAL_MICROSECONDS = 10_000

      def call(io, options)
        seconds = options.fetch("duration", DURATION)
        unless seconds.is_a?(Numeric) && seconds.positive? && seconds <= LONGEST
          raise Unavailable, "duration #{seconds.inspect} is not a number of seconds up to #{format("%g", LONGEST)}"
        end

        if available?("vernier", :Vernier) then vernier(io, seconds)
        elsif available?("stackprof", :StackProf) then stackprof(io, seconds)
        else raise Unavailable, "neither vernier nor stackprof can be loaded here (hint: add one of them to the Gemfile)"
        end
      end

      private

      # Loaded when it is asked for first: an application that has it for development only pays nothing.
      def available?(library, constant)
        require library unless Object.const_defined?(constant)
        Object.const_defined?(constant)
      rescue LoadError
        false
      end

      # A collector of our own does not touch one that the application has started.
      def vernier(io, seconds)
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
        busy = "a profile is under way in this process"
        raise Unavailable, "#{busy}: stackprof runs" if ::StackProf.running?
        raise Unavailable, "#{busy}: SIGPROF has a handler" if profiling_signal_taken?
        raise Unavailable, busy unless ::StackProf.start(mode: :cpu, interval: INTERVAL_MICROSECONDS, raw: true)

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
