# frozen_string_literal: true

module Diagctl
  # Finds the store: DIAGCTL_DIR, or the directory that `diagctl config show` reports.
  # Poll thread, or the caller of Diagctl.capture. Resolved once per process, and created again whenever it is missing.
  #
  # @api private
  module StoreDir
    TIMEOUT = 30.0
    QUESTION = %w[config show --json].freeze

    # @return [String] the directory, which exists
    # @raise [Problem]
    def self.resolve(binary, env: ENV, timeout: TIMEOUT)
      dir = env["DIAGCTL_DIR"].to_s
      dir = ask(binary, [timeout, TIMEOUT].min) if dir.empty?
      create(File.absolute_path(dir))
    end

    def self.ask(binary, timeout)
      outcome = Spawn.run([binary, *QUESTION], timeout: timeout)
      raise Problem.new(outcome.kind, outcome.describe("`diagctl config show --json`")) unless outcome.success?

      dir = JSON.parse(outcome.stdout).dig("values", "dir", "value")
      return dir if dir.is_a?(String) && !dir.empty?

      raise Problem.new(:garbage, "`diagctl config show --json` does not name a directory (hint: set DIAGCTL_DIR)")
    rescue JSON::ParserError, TypeError, NoMethodError
      raise Problem.new(:garbage, "`diagctl config show --json` did not print the expected JSON (hint: set DIAGCTL_DIR)")
    end

    # Creates the last component only: a missing parent is more likely a volume that is not mounted.
    def self.create(dir)
      Dir.mkdir(dir, 0o700)
      dir
    rescue Errno::EEXIST
      dir
    rescue SystemCallError => e
      raise Problem.new(:store, "the store #{Diagctl.one_line(dir)} cannot be created: #{Diagctl.one_line(e.message)} " \
        "(hint: create it for user #{Process.euid} with mode 0700, or set DIAGCTL_DIR)")
    end
    private_class_method :ask
  end
end
