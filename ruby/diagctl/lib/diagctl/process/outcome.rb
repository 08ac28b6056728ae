# frozen_string_literal: true

module Diagctl
  # How a child process ended. Any thread of the worker, and the forked dumper.
  #
  # `kind` is one of
  # - :exited, `code` is the exit status
  # - :signaled, `code` is the signal number
  # - :timeout, `code` is the limit in seconds; the child was killed
  # - :flooded, it printed too much and was killed
  # - :missing, it could not be started
  # - :unknown, the application reaped it before diagctl could
  # - :abandoned, `code` is the reason why a dumper was killed
  #
  # @api private
  Outcome = Struct.new(:kind, :code, :stdout, :stderr) do
    def success?
      kind == :exited && code.zero?
    end

    # @param name [String] the process that ended, as the log should call it
    # @param after [Numeric, nil] seconds that it had run
    def describe(name, after: nil)
      ended = case kind
        when :exited then "ended with status #{code}"
        when :signaled then "was killed by SIG#{Signal.signame(code) || code}#{" after #{after.round(1)} s" if after}"
        when :timeout then "did not end within #{format("%g", code)} s and was killed"
        when :flooded then "printed more than #{Pipes::STDOUT_LIMIT} bytes and was killed"
        when :missing then "could not be started"
        when :abandoned then "was killed: #{code}"
        else "ended, but other code in this process collected its exit status"
      end
      said = Diagctl.one_line(stderr)
      "#{name} #{ended}#{": #{said}" unless said.empty?}"
    end
  end
end
