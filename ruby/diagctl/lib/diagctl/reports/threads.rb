# frozen_string_literal: true

module Diagctl
  class Reports
    # Name, state and backtrace of every thread. No values of the application.
    # Worker; inline.
    #
    # @api private
    class Threads
      def call(io, _options)
        threads = Thread.list
        io.write("#{threads.size} threads of process #{Process.pid} (ruby #{RUBY_VERSION})\n")
        threads.each { |thread| describe(io, thread) }
      end

      private

      def describe(io, thread)
        name = thread.name || (thread == Thread.main ? "main" : "-")
        id = thread.native_thread_id if thread.respond_to?(:native_thread_id)
        io.write("\nThread #{name.inspect} tid=#{id || "-"} status=#{thread.status || "dead"} priority=#{thread.priority}" \
          "#{" (took this report)" if thread == Thread.current}\n")
        frames = thread.backtrace
        return io.write("  (no Ruby frame)\n") if frames.nil? || frames.empty?

        frames.each { |frame| io.write("  #{frame}\n") }
      end
    end
  end
end
