# frozen_string_literal: true

module Diagctl
  # Base class of the exceptions that diagctl defines.
  class Error < StandardError; end

  # A report cannot be made in this process, for the reason in the message. Becomes `finalize --failed`.
  class Unavailable < Error; end

  # A poll or a capture could not be done. Never leaves diagctl: it is logged once, and the next poll waits longer.
  #
  # @api private
  class Problem < Error
    attr_reader :kind

    # @param message [String] may contain paths and other text in any encoding; stored as valid UTF-8
    def initialize(kind, message)
      super(Diagctl.one_line(message, 1000))
      @kind = kind
    end

    # Equal for two messages that differ only in numbers (pids, times).
    def key
      [kind, message.gsub(/\d+/, "N")]
    end
  end

  # Turns foreign text (stderr, an exception) into one bounded, printable line for a log or an argument.
  #
  # @api private
  def self.one_line(text, limit = 400)
    line = text.to_s.dup.force_encoding(Encoding::UTF_8).scrub("?").gsub(/[[:cntrl:] ]+/, " ").strip
    line.length > limit ? "#{line[0, limit]}…" : line
  end
end
