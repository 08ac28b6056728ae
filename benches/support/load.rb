# frozen_string_literal: true

require "rbconfig"

module Bench
  # The load generator (open_loop.rb), in a separate process.
  class Load
    # A site's clients have computers of their own. The load generator stands for them here, so it gets priority, for which it
    # needs root.
    AHEAD = system("chrt", "--fifo", "1", "true", out: File::NULL, err: File::NULL) ? %w[chrt --fifo 1] : []

    # @param rate [Numeric] requests a second
    def initialize(server, rate)
      @out, out = IO.pipe
      @pid = Process.spawn(*AHEAD, RbConfig.ruby, File.join(__dir__, "open_loop.rb"), server.port.to_s, rate.to_s,
                           server.class::PAGE, server.class::ANSWER, out: out)
      out.close
    end

    # Returns every request, with the time it was due and its latency in ms or its error, and the generator's longest delay in
    # ms.
    def finish
      Process.kill(:TERM, @pid)
      *requests, last = @out.read.lines.map(&:split)
      Process.wait(@pid)
      abort "the load generator failed" unless $?.success?
      [requests.map { |due, outcome| [due.to_f, outcome.match?(/\A\d/) ? outcome.to_f : outcome] }, last[1].to_f]
    end
  end
end
