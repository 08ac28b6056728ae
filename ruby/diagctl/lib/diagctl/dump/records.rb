# frozen_string_literal: true

module Diagctl
  # The records that `diagctl put` and `diagctl finalize` read from stdin: reports, the reasons why others failed, costs. One
  # program takes all of them, and nothing that the application wrote is on a command line. See docs/protocol.md, Records.
  # Worker (poll thread, or the caller of Diagctl.capture) and forked dumper. Pure.
  #
  # @api private
  class Records
    def initialize
      @text = String.new(encoding: Encoding::BINARY)
    end

    # @param data [String] the whole report
    def report(name, data)
      add("report", name, data)
    end

    def failed(name, message)
      add("failed", name, Diagctl.one_line(message))
    end

    def set(key, value)
      add("set", key, Diagctl.one_line(value))
    end

    # The dump broke off; whatever was not delivered failed for this reason.
    def broken_off(reason)
      add("broken_off", "-", Diagctl.one_line(reason))
    end

    def empty?
      @text.empty?
    end

    # @return [String]
    def to_s
      "#{@text}end - 0\n"
    end

    private

    def add(kind, name, data)
      @text << "#{kind} #{name} #{data.bytesize}\n" << data.b
      self
    end
  end
end
