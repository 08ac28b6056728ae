# frozen_string_literal: true

require_relative "shipping"

module E2E
  # The remote is a directory.
  class DirectoryCase < Case
    include Shipping

    def setup
      super
      @files = File.join(@root, "files")
      Dir.mkdir(@files)
      configure(remote: remote_section)
    end

    def remote_section = "url = \"file://#{@files}\""

    def shipping_env = env(PATH: "#{File.dirname(REMOTE_BIN)}:#{ENV.fetch("PATH")}")

    def remote_keys = Dir["**/*", base: @files].select { |name| File.file?(File.join(@files, name)) }

    def remote_object(key) = File.binread(File.join(@files, key))
  end
end
