# frozen_string_literal: true

module Diagctl
  # The source of the native walker: `diagctl walker` hands it out, and remembers how it did in this Ruby.
  #
  # Forked dumper only.
  #
  # @api private
  class WalkerSource
    # Follows a walker that proved itself in an earlier capture.
    PROVEN = "\nproven\n"
    TIMEOUT = 30.0

    def initialize(client, lease, capture)
      @client = client
      @lease = lease
      @capture = capture
    end

    # @return [File, nil] the file in memory that the walker is loaded from
    def file
      @file ||= (Libc.memory_file("diagctl-heapwalk") if Libc.load)
    end

    # Fetches the walker into the file, once.
    #
    # @return [String, nil] why it must not be used
    def refusal
      return if @obtained
      return "Fiddle is not available" unless file

      outcome = @client.walker(@lease, @capture, ruby: WalkerProcess.ruby, into: file, timeout: TIMEOUT)
      @obtained = outcome.success? && file.size.positive?
      return if @obtained

      said = Diagctl.one_line(outcome.stderr)
      outcome.kind == :exited && !said.empty? ? said : outcome.describe("`diagctl walker`")
    end

    # @return [Boolean] true if an earlier capture proved it. Where allocations are traced there is more to prove.
    def proven?
      size = PROVEN.bytesize
      file.size > size && file.pread(size, file.size - size) == PROVEN && !ObjectSpace.allocation_sourcefile(Object.new)
    end

    # It proved itself, and walked. An older diagctl does not know how to remember that, which does no harm.
    def worked
      @client.walker_proven(@lease, @capture, ruby: WalkerProcess.ruby)
    end

    # @param reason [String]
    def crashed(reason)
      @client.walker_failed(@lease, @capture, ruby: WalkerProcess.ruby, reason: reason)
    end
  end
end
