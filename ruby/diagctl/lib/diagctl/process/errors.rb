# frozen_string_literal: true

module Diagctl
  class Error < StandardError; end

  # A report cannot be made in this process; the message says why. It becomes `finalize --failed`.
  class Unavailable < Error; end

  # Something kept one poll or one dump from working. Never leaves diagctl: it is logged once and backed off from.
  #
  # @api private
  class Problem < Error
    attr_reader :kind

    # @param message [String] may name paths and other text of any bytes; read back it is valid UTF-8
    def initialize(kind, message)
      super(Diagctl.one_line(message, 1000))
      @kind = kind
    end

    # Two messages that differ in pids and times only are one problem.
    def key
      [kind, message.gsub(/\d+/, "N")]
    end
  end

  # Text of someone else's (stderr, an exception) as one bounded, printable line for a log or an argument.
  #
  # @api private
  def self.one_line(text, limit = 400)
    line = text.to_s.dup.force_encoding(Encoding::UTF_8).scrub("?").gsub(/[[:cntrl:] ]+/, " ").strip
    line.length > limit ? "#{line[0, limit]}…" : line
  end
end
