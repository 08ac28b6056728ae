# frozen_string_literal: true

require "open3"

module E2E
  # The standard program age, which knows nothing of diagctl, with a key of its own.
  class Age
    MAGIC = "age-encryption.org/v1"

    attr_reader :key, :recipient

    def initialize(dir, name)
      @key = File.join(dir, "#{name}.key")
      run("age-keygen", "-o", @key)
      @recipient = run("age-keygen", "-y", @key).strip
    end

    def secret = File.read(@key)[/^AGE-SECRET-KEY-\S+/]

    def decrypt(path) = run("age", "-d", "-i", @key, path)

    def encrypt(content, path) = run("age", "-r", @recipient, "-o", path, stdin: content)

    # Returns what age says of a file that it cannot decrypt.
    def complaint(path)
      _, said, status = Open3.capture3("age", "-d", "-i", @key, path, binmode: true)
      raise "age decrypted #{path}" if status.success?

      said
    end

    private

    def run(*command, stdin: "")
      out, said, status = Open3.capture3(*command, stdin_data: stdin, binmode: true)
      status.success? ? out : raise("#{command.join(' ')}: #{said}")
    end
  end
end
