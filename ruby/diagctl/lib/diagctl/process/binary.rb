# frozen_string_literal: true

require_relative "executable"

module Diagctl
  # Finds the `diagctl` program: DIAGCTL_BIN, then that of the gem, then PATH.
  # Any thread, at the start of polling.
  #
  # @api private
  class Binary
    # A gem for a platform has its program in a directory of that name here.
    EXE = File.expand_path("../../../exe", __dir__)
    # The CPUs for which there are such gems. One static program serves glibc and musl.
    CPUS = %w[aarch64 x86_64].freeze

    # @return [String, nil] absolute path
    attr_reader :path

    def initialize(env: ENV, exe: EXE, cpu: RUBY_PLATFORM[/\A[^-]+/])
      @env = env
      @exe = exe
      @cpu = cpu
      @path = find
    end

    def warning
      what, hint = problem
      "#{what}; no reports will be collected (hint: #{hint})" if what
    end

    # @return [Array<String>, nil] what is wrong, and a hint
    def problem
      return if path

      override ? wrong_override : missing
    end

    private

    def override
      named = @env["DIAGCTL_BIN"].to_s
      named unless named.empty?
    end

    # A wrong DIAGCTL_BIN is an error. Another program, found elsewhere, could be of another version.
    def find
      return absolute(override) if override

      (own + in_path).find { |file| file.fault.nil? }&.path
    end

    def absolute(path)
      file = Executable.new(path)
      file.path if file.file? && file.executable?
    end

    def own
      @own ||= Dir.glob(File.join(@exe, "*", "diagctl")).sort.map { |path| Executable.new(path) }
    end

    # The `diagctl` that RubyGems writes into PATH is a Ruby script. It would start Ruby at each poll, and look for the program in PATH.
    def in_path
      dirs = @env["PATH"].to_s.split(File::PATH_SEPARATOR).reject(&:empty?)
      dirs.map { |dir| Executable.new(File.join(dir, "diagctl")) }.reject(&:ruby_script?)
    end

    def wrong_override
      ["DIAGCTL_BIN=#{override} is not an executable file", "correct the path, or unset DIAGCTL_BIN to search the gem and PATH"]
    end

    def missing
      return unusable(own.first) if own.any?
      unless CPUS.include?(@cpu)
        return ["no gem has the diagctl program for #{@cpu}-linux, and it is not in PATH",
                "build it (make build), and install it in PATH or set DIAGCTL_BIN to its path"]
      end

      ["this diagctl gem is the one without the program, and the program is not in PATH",
       "run `bundle lock --add-platform #{@cpu}-linux && bundle install` without force_ruby_platform for the gem that has it, install " \
       "it in PATH, or set DIAGCTL_BIN to its path"]
    end

    def unusable(file)
      hint = if file.executable?
        "install the gem on the machine that runs it: bundle lock --add-platform #{@cpu}-linux && bundle install"
      else
        "run `gem pristine diagctl`, or chmod 755 on it; on a filesystem mounted noexec, set DIAGCTL_BIN to a copy elsewhere"
      end
      ["the program of the diagctl gem, #{file.path}, #{file.fault}, and there is none in PATH", hint]
    end
  end
end
