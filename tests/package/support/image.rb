# frozen_string_literal: true

require_relative "../../e2e/support/e2e"

module E2E
  # A Debian of packaging/image, and commands in it.
  class Image
    # @return [Image, nil] nil where none can be made; `why` says why
    def self.named(name)
      @images ||= {}
      return @images[name] if @images.key?(name)

      made = Command.run(File.join(ROOT, "packaging/image"), name, env: ENV.to_h.slice("PATH", "HOME", "DIAGCTL_CACHE"), deadline: 1800)
      @why = made.err.lines.last
      @images[name] = made.ok? ? new(made.out.strip) : nil
    end

    def self.why = @why

    def initialize(dir)
      @dir = dir
    end

    # Runs a script of the shell, which ends at the first command that fails.
    #
    # @param ro [Hash] directories and files of the host by their names in the image
    # @param rw [Hash] the same, writable
    # @return [Result]
    def run(script, ro: {}, rw: {}, env: {}, deadline: 300)
      binds = [["--bind-ro", ro], ["--bind", rw]].flat_map { |flag, map| map.flat_map { |inside, outside| [flag, "#{outside}:#{inside}"] } }
      Command.run(File.join(ROOT, "packaging/inside"), @dir, *binds, *env.map { |key, value| "#{key}=#{value}" }, "sh", "-exc", script,
        env: ENV.to_h.slice("PATH", "HOME"), deadline: deadline)
    end
  end
end
