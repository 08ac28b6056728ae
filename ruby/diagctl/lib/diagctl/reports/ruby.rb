# frozen_string_literal: true

module Diagctl
  class Reports
    # Version, settings and loaded gems of this Ruby. Environment variables by name only, because their values may be secrets.
    # Worker; inline.
    #
    # @api private
    class Ruby
      def call(io, _options)
        io.write(JSON.generate(data))
      end

      private

      def data
        {
          description: RUBY_DESCRIPTION,
          engine: RUBY_ENGINE,
          version: RUBY_VERSION,
          patchlevel: RUBY_PATCHLEVEL,
          platform: RUBY_PLATFORM,
          yjit: enabled?(:YJIT),
          # RJIT was called MJIT up to Ruby 3.2.
          rjit: enabled?(:RJIT) || enabled?(:MJIT),
          pid: Process.pid,
          uptime_seconds: uptime,
          title: Diagctl.one_line($PROGRAM_NAME),
          loaded_features: $LOADED_FEATURES.size,
          gems: gems,
          environment_names: ENV.keys.map { |name| Diagctl.one_line(name) }.sort
        }
      end

      def enabled?(jit)
        RubyVM.const_defined?(jit) && RubyVM.const_get(jit).enabled? ? true : false
      rescue NameError
        false
      end

      def gems
        Gem.loaded_specs.to_h { |name, spec| [name, spec.version.to_s] }.sort.to_h
      rescue NameError
        {} # --disable-gems
      end

      # Asks the kernel, because the process may be a fork that is much younger than this code.
      def uptime
        started = File.read("/proc/self/stat").rpartition(")").last.split[19].to_f / Etc.sysconf(Etc::SC_CLK_TCK)
        (Process.clock_gettime(Process::CLOCK_BOOTTIME) - started).round(1)
      rescue SystemCallError, NameError
        nil
      end
    end
  end
end
