# frozen_string_literal: true

module Diagctl
  # The JSON object that `diagctl acquire` printed. Every field is checked before use: the program may be of another version.
  # Poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class Fields
    # @raise [Problem]
    def initialize(text)
      @fields = JSON.parse(text)
      reject("it is not a JSON object") unless @fields.is_a?(Hash)
    rescue JSON::ParserError
      reject("it is not JSON: #{Diagctl.one_line(text, 80).inspect}")
    end

    def [](key)
      @fields[key]
    end

    def fetch(key, default)
      @fields.fetch(key, default)
    end

    # @raise [Problem]
    def one_of(key, allowed)
      value = @fields[key]
      reject("#{key} #{value.inspect} is none of #{allowed.join(", ")}") unless allowed.include?(value)
      value
    end

    # @return [Float]
    # @raise [Problem]
    def number(key, minimum)
      value = @fields[key]
      reject("#{key} #{value.inspect} is not a number of at least #{minimum}") unless value.is_a?(Numeric) && value >= minimum
      value.to_f
    end

    # @raise [Problem] always
    def reject(reason)
      raise Problem.new(:garbage, "`diagctl acquire` gave an answer that cannot be used: #{reason}")
    end
  end
end
