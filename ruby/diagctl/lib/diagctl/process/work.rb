# frozen_string_literal: true

module Diagctl
  # The requests and other work in progress, each under its route or a name in the code. A poll records their number by name, so that
  # `diagctl deaths` tells what a process was doing. Nothing of a request is kept: no path, no parameter.
  #
  # Bounded by the number of threads that work. Written by the application's threads, read by the poll thread. Needs no lock: Ruby does
  # not switch threads within one operation on a hash.
  #
  # @api private
  class Work
    # Names that a poll sends, and their number.
    SHOWN = 10
    PLAIN = %r{\A[A-Za-z0-9_(:/*][A-Za-z0-9_.:#/*(){}-]{0,79}\z}
    NONE = {}.freeze

    def initialize
      @running = {}.compare_by_identity
      @pid = Process.pid
    end

    # @param name [String, #call] called by the poll thread, if it can be called: a route is known only while the request runs
    # @return what ran on this fiber before, for `finish`
    def start(name)
      fiber = Fiber.current
      before = @running[fiber]
      @running[fiber] = name
      before
    end

    def finish(before = nil)
      before ? @running[Fiber.current] = before : @running.delete(Fiber.current)
    end

    # @return [Hash{String=>Integer}] gauges: the number of each name
    def counts
      return NONE if @running.empty?

      forget_those_of_the_parent unless @pid == Process.pid
      names = @running.values.filter_map { |name| plain(name) }
      names.tally.max_by(SHOWN, &:last).to_h { |name, count| ["request.running.#{name}", count] }
    end

    private

    # A forked child has the entries of threads that it has not.
    def forget_those_of_the_parent
      @pid = Process.pid
      @running.clear
    end

    # A space, as in Sinatra's "GET /posts/:id", would end the name of a gauge.
    def plain(name)
      name = name.call if name.respond_to?(:call)
      name = name.to_s.tr(" ", ":") if name.is_a?(String) || name.is_a?(Symbol)
      name if name.is_a?(String) && PLAIN.match?(name)
    rescue StandardError
      nil # The framework's object may be in any state.
    end
  end
end
