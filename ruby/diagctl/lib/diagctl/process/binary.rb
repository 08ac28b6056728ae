# frozen_string_literal: true

module Diagctl
  # Finds the `diagctl` program: DIAGCTL_BIN, then the gem's own exe/, then PATH.
  # Any thread, at the start of polling.
  #
  # @api private
  class Binary
    OWN = File.expand_path("../../../exe/diagctl", __dir__)

    # @return [String, nil] absolute path
    attr_reader :path

    def initialize(env: ENV, own: OWN)
      @env = env
      @own = own
      @path = find
    end

    def warning
      return if path

      override = @env["DIAGCTL_BIN"]
      if override.to_s.empty?
        "the diagctl program is neither at #{@own} nor in PATH; no reports will be collected " \
          "(hint: install it, or set DIAGCTL_BIN to its path)"
      else
        "DIAGCTL_BIN=#{override} is not an executable file; no reports will be collected " \
          "(hint: correct the path, or unset DIAGCTL_BIN to search PATH)"
      end
    end

    private

    # A wrong DIAGCTL_BIN is an error. Another program, found elsewhere, could be of another version.
    def find
      override = @env["DIAGCTL_BIN"]
      return executable(override) unless override.to_s.empty?

      in_path = @env["PATH"].to_s.split(File::PATH_SEPARATOR).reject(&:empty?).map { |dir| File.join(dir, "diagctl") }
      [@own, *in_path].each do |candidate|
        found = executable(candidate)
        return found if found
      end
      nil
    end

    # `~` is not expanded, just as in exec(3).
    def executable(path)
      path = File.absolute_path(path)
      path if File.file?(path) && File.executable?(path)
    end
  end
end
