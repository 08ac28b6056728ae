# frozen_string_literal: true

module Diagctl
  # Default logger: one prefixed line on whatever $stderr is at that moment.
  # Any thread, any process but the forked dumper, which logs nothing.
  #
  # @api private
  class StderrLogger
    def info(message)
      $stderr.write("[diagctl] #{message}\n")
    end
    alias warn info
    alias error info
  end

  # The host's logger behind two promises: logging never raises into the host, and what is said once
  # per key is said once, also by the processes forked afterwards.
  #
  # @api private
  class Log
    # What is said once is remembered. Some keys hold words of the application's, so that they could become ever more.
    KEYS = 1000

    def initialize
      @said = {}
    end

    # @param default [#info, nil] used until the application sets a logger of its own
    attr_writer :default

    def logger
      Diagctl.configuration.logger || @default || (@fallback ||= StderrLogger.new)
    end

    def info(message)
      emit(:info, message)
    end

    def warn(message)
      emit(:warn, message)
    end

    # @return [Boolean] whether it was said now
    def warn_once(key, message)
      return false if @said.key?(key) || @said.size >= KEYS

      @said[key] = true
      warn(message)
      true
    end

    private

    def emit(level, message)
      logger.public_send(level, Diagctl.one_line(message, 1000))
    rescue StandardError
      nil # A broken logger is the host's to repair; a report is not worth an exception.
    end
  end
end
