# frozen_string_literal: true

require_relative "torture"

module Torture
  # A C extension that hangs where it must not run (hanging.c).
  module Hanging
    SOURCE = File.join(__dir__, "hanging.c")

    # Compiles it.
    #
    # @return [String] path of the extension, for `require`
    def hanging_extension
      path = File.join(@root, "hanging.so")
      result = E2E::Command.run("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", path, SOURCE, env: ENV.to_h)
      assert result.ok?, result
      path
    end
  end
end
