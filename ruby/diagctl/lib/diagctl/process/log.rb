# frozen_string_literal: true

module Diagctl
  # The default logger: one prefixed line to the current $stderr.
  # Any thread, any process except the forked dumper, which logs nothing.
  #
  # @api private
  class StderrLogger
    def info(message)
      $stderr.write("[diagctl] #{message}\n")
    end
    alias warn info
    alias error info
  end

  # Wraps the application's logger. Logging never raises into the application and never waits for its log, and a message with a key is logged once, also by
  # processes forked later. Any thread, any process except the forked dumper.
  #
  # @api private
  class Log
    # Limits the number of remembered keys. Some contain text of the application, so their number is not bounded otherwise.
    KEYS = 1000

    def initialize
      @said = {}
      @writer = LogWriter.new
    end

    # @param default [#info, nil] used until the application sets its own logger
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

    # @return [Boolean] whether the message was logged now
    def warn_once(key, message) = once(key) { warn(message) }

    # @return [Boolean] whether the message was logged now
    def info_once(key, message) = once(key) { info(message) }

    private

    def once(key)
      return false if @said.key?(key) || @said.size >= KEYS

      @said[key] = true
      yield
      true
    end

    def emit(level, message)
      @writer.push(logger, level, Diagctl.one_line(message, 1000))
    rescue StandardError
      nil # A broken logger is for the application to repair.
    end
  end
end
