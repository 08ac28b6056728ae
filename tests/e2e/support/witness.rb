# frozen_string_literal: true

module E2E
  # Detects overlapping dumps without trusting diagctl: a wrapper in place of the program that holds a lock of its own from the
  # first to the last instruction of each `put`.
  class Witness
    PROGRAM = <<~SH
      #!/bin/sh
      case "$1 $2 $3 $4" in
        *" put "*|put\\ *) exec 9>>%<root>s/witness; flock -n 9 || echo "$*" >> %<root>s/overlaps ;;
      esac
      exec %<binary>s "$@"
    SH

    attr_reader :binary

    def initialize(root)
      @root = root
      @binary = File.join(root, "diagctl")
      File.write(@binary, format(PROGRAM, root: root, binary: BIN))
      File.chmod(0o755, @binary)
    end

    def saw? = File.exist?(File.join(@root, "witness"))

    # The arguments of each `put` that overlapped another.
    def overlaps
      path = File.join(@root, "overlaps")
      File.exist?(path) ? File.readlines(path, chomp: true) : []
    end
  end
end
