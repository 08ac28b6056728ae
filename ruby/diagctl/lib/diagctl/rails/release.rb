# frozen_string_literal: true

module Diagctl
  # The release of an application, as its deployment names it.
  # Any thread, while the application boots.
  #
  # @api private
  module Release
    # As set by people, Kamal, Heroku, Render, and build systems.
    VARIABLES = %w[APP_RELEASE GIT_SHA GIT_COMMIT REVISION KAMAL_VERSION HEROKU_RELEASE_VERSION HEROKU_SLUG_COMMIT SOURCE_VERSION
                   RENDER_GIT_COMMIT].freeze
    SHA = /\A\h{40,64}\z/

    # @param root [Pathname, String] the application's directory
    # @return [String, nil]
    def self.of(root, env: ENV)
      given = VARIABLES.map { |name| env[name].to_s.strip }.find { |value| !value.empty? }
      given || line(root, "REVISION") || commit(File.join(root, ".git"))
    end

    # The commit of a checkout, without starting git. nil if it is only in packed-refs.
    def self.commit(git)
      head = line(git, "HEAD") or return
      ref = head[/\Aref: (\S+)\z/, 1]
      head = line(git, ref) if ref
      head if head&.match?(SHA)
    end

    # The first line of a small file, such as Capistrano's REVISION.
    def self.line(dir, name)
      text = File.read(File.join(dir, name), 200, encoding: Encoding::UTF_8)&.scrub
      text&.lines&.first.to_s.strip.then { |line| line unless line.empty? }
    rescue SystemCallError
      nil
    end
    private_class_method :commit, :line
  end
end
