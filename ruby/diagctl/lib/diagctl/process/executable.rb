# frozen_string_literal: true

module Diagctl
  # A file that may be the `diagctl` program.
  # Any thread, at the start of polling.
  #
  # @api private
  class Executable
    # The machines of the ELF header by their numbers there.
    MACHINES = { 3 => "i386", 40 => "arm", 62 => "x86_64", 183 => "aarch64", 243 => "riscv64" }.freeze

    # @return [String] absolute
    attr_reader :path

    # `~` is not expanded, just as in exec(3).
    def initialize(path)
      @path = File.absolute_path(path)
    end

    def file?
      File.file?(path)
    end

    def executable?
      File.executable?(path)
    end

    # @return [String, nil] the reason why it cannot run here, as a predicate
    def fault
      return "is missing" unless file?
      return "is not executable" unless executable?

      theirs = Executable.machine(head)
      ours = Executable.machine(Executable.new("/proc/self/exe").head)
      "is for #{MACHINES.fetch(theirs, theirs)}, not for #{MACHINES.fetch(ours, ours)}" if theirs && ours && theirs != ours
    end

    # RubyGems and Bundler begin theirs with `#!…ruby`, or with `#!/bin/sh` and a comment for editors.
    def ruby_script?
      head.start_with?("#!") && (head.lines.first.include?("ruby") || head.include?("# -*- ruby -*-"))
    end

    # The first bytes, none if they cannot be read.
    def head
      @head ||= begin
        File.binread(path, 256).to_s
      rescue SystemCallError
        ""
      end
    end

    # @return [Integer, nil] the machine of an ELF file
    def self.machine(head)
      return unless head.start_with?("\x7FELF".b) && head.bytesize >= 20

      head[18, 2].unpack1(head.getbyte(5) == 2 ? "S>" : "S<")
    end
  end
end
