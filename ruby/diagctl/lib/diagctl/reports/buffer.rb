# frozen_string_literal: true

module Diagctl
  class Reports
    # Takes an inline report in memory, and no more of it than allowed: a report of the application could otherwise fill the memory of
    # the worker before anybody looks at its size. Worker; loaded with StringIO (Runtime).
    #
    # @api private
    class Buffer < StringIO
      MAX_SIZE = 16 * 1024 * 1024

      # CPU seconds that other threads spent on this report.
      attr_accessor :foreign_cpu

      def initialize(max_size = nil)
        @max_size = max_size || MAX_SIZE
        @foreign_cpu = 0.0
        super(String.new(encoding: Encoding::BINARY))
      end

      # `puts`, `print`, `printf` and `<<` come through here, too.
      #
      # @raise [Unavailable]
      def write(*texts)
        size = texts.sum { |text| text.to_s.bytesize }
        raise Unavailable, "it wrote more than #{@max_size} bytes (max_size)" if pos + size > @max_size

        super
      end
      alias syswrite write

      def putc(character)
        write(character.is_a?(Integer) ? (character & 255).chr : character.to_s[0])
        character
      end
    end
  end
end
