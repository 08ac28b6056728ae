# frozen_string_literal: true

module E2E
  # Clients that send requests until they are stopped. Failed requests are recorded, and so is every answer other than the page.
  class Traffic
    attr_reader :served, :failed

    def initialize(server, clients: 3, pause: 0.02, pages: { "/" => // })
      @server = server
      @pages = pages.to_a
      @asked = @served = @failed = 0
      @running = true
      @mutex = Mutex.new
      @threads = Array.new(clients) { Thread.new { ask(pause) while @running } }
    end

    def stop
      @running = false
      @threads.each(&:join)
      self
    end

    private

    def ask(pause)
      path, page = @mutex.synchronize { @pages[(@asked += 1) % @pages.size] }
      answered = @server.get(path)&.match?(page)
      @mutex.synchronize { answered ? @served += 1 : @failed += 1 }
      sleep pause
    end
  end
end
