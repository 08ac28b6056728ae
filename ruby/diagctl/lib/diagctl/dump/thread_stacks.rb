# frozen_string_literal: true

module Diagctl
  # What the other threads hold in local variables: the result of a query that a request is working on. In a forked child their stacks
  # are gone, and with them what keeps these objects.
  #
  # Worker, right before the fork, while no collection can begin. Takes some ten microseconds a thread.
  #
  # @api private
  module ThreadStacks
    # CPU seconds after which the rest of the threads is left out.
    LIMIT = 0.005
    # The place of the object in what stands for an internal one: `data` of `struct RTypedData`
    # (include/ruby/internal/core/rtypeddata.h).
    DATA = 4 * 8

    class << self
      # @param threads [Array<Thread>]
      # @return [Hash{Thread=>String}] addresses of what the stacks refer to, packed; empty for a thread that is left out
      def collect(threads)
        stacks = threads.to_h { |thread| [thread, ""] }.compare_by_identity
        return stacks unless Libc.load

        limit = Clock.thread_cpu + LIMIT
        threads.each do |thread|
          break if Clock.thread_cpu > limit

          stacks[thread] = references(thread) unless Thread.current.equal?(thread)
        end
        stacks
      rescue StandardError
        stacks # The dump tells less.
      end

      private

      # A thread whose fiber is an object refers to that.
      def references(thread)
        found = ObjectSpace.reachable_objects_from(thread) || []
        found.grep(Fiber).each { |fiber| found.concat(ObjectSpace.reachable_objects_from(fiber) || []) }
        found.map! { |object| address(object) }.pack("J*")
      end

      def address(object)
        address = Fiddle.dlwrap(object)
        return address unless ObjectSpace::InternalObjectWrapper === object # rubocop:disable Style/CaseEquality

        Libc.word_at(address + DATA)
      end
    end
  end
end
