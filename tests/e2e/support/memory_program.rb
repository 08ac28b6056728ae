# frozen_string_literal: true

module E2E
  # A Ruby process that uses memory in a way of its own, and polls. It is ready once its code has run.
  class MemoryProgram
    # The programs that take the memory, by cause. Each is code for a process of its own; `worker` starts polling.
    CODE = {
      retained: '$sessions = Array.new(600_000) { |i| "session #{i} " + "x" * 60 }
                 worker("one")',
      burst: '$few = []
              all = Array.new(2_500_000) { Object.new }
              all.each_with_index { |object, i| $few << object if (i % 300).zero? }
              all.clear
              2.times { GC.start }
              worker("one")',
      # Blocks of 20 to 50 kB are freed between strings that stay: glibc cannot return the holes, jemalloc does.
      holes: '$small = []
              big = Array.new(4000) { |i| $small << "y" * 100; "x" * (20_000 + i % 30_000) }
              big.clear
              3.times { GC.start }
              worker("one")',
      zlib: 'require "zlib"
             $streams = Array.new(400) { Zlib::Deflate.new.tap { |stream| stream << Random.bytes(70_000) } }
             GC.start
             worker("one")',
      openssl: 'require "openssl"
                $contexts = Array.new(6000) { OpenSSL::SSL::SSLContext.new }
                GC.start
                worker("one")',
      c_library: 'require "fiddle"
                  size, pointer, int = Fiddle::TYPE_SIZE_T, Fiddle::TYPE_VOIDP, Fiddle::TYPE_INT
                  malloc = Fiddle::Function.new(Fiddle::Handle::DEFAULT["malloc"], [size], pointer)
                  memset = Fiddle::Function.new(Fiddle::Handle::DEFAULT["memset"], [pointer, int, size], pointer)
                  40_000.times { memset.call(malloc.call(3000), 1, 3000) }
                  GC.start
                  worker("one")',
      mapped: 'require "fiddle"
               size, pointer, int = Fiddle::TYPE_SIZE_T, Fiddle::TYPE_VOIDP, Fiddle::TYPE_INT
               mmap = Fiddle::Function.new(Fiddle::Handle::DEFAULT["mmap"], [pointer, size, int, int, int, Fiddle::TYPE_LONG], pointer)
               memset = Fiddle::Function.new(Fiddle::Handle::DEFAULT["memset"], [pointer, int, size], pointer)
               memset.call(mmap.call(nil, 120 << 20, 3, 0x22, -1, 0), 1, 120 << 20)
               worker("one")',
      written_after_fork: '$loaded = Array.new(1_500_000) { +"loaded" }
                           3.times { |i| fork { mark = "!"; $loaded.each { |string| string << mark }; worker("w#{i}") } }
                           sleep',
      shared_after_fork: '$loaded = Array.new(1_500_000) { +"loaded" }
                          4.times { GC.start }
                          3.times { |i| fork { worker("w#{i}") } }
                          sleep',
      many: '8.times { |i| fork { $own = "x" * (28 << 20); worker("w#{i}") } }
             sleep'
    }.freeze

    PREAMBLE = <<~RUBY
      require "diagctl"
      Diagctl.configure { |c| c.first_poll_within = 0.01 }
      def worker(name)
        Diagctl.start(role: "worker", name: name) or abort "not started"
        File.write(File.join(ENV.fetch("READY"), name), Process.pid.to_s)
        # As in an application: something is allocated now and then, so that an allocator gets to its chores.
        loop { sleep 0.2; Array.new(200) { "z" * 3000 } }
      end
    RUBY

    def initialize(root, env, cause, wrapper: [])
      @log = File.join(root, "#{cause}.log")
      @ready = Dir.mktmpdir("ready", root)
      path = File.join(root, "#{cause}.rb")
      File.write(path, "#{PREAMBLE}#{CODE.fetch(cause)}\n")
      env = env.merge("RUBYLIB" => PumaServer::LOAD_PATH, "READY" => @ready)
      @pid = Process.spawn(env, *wrapper, RbConfig.ruby, path, in: :close, %i[out err] => [@log, "a"], unsetenv_others: true)
    end

    # Returns the pid of a worker, once all of them are ready.
    def worker(count = 1)
      E2E.wait_until("#{count} workers are ready", deadline: 120, tell: method(:log)) do
        raise "the program ended\n#{log}" unless Processes.alive?(@pid)

        pids = Dir.children(@ready).sort.map { |name| File.read(File.join(@ready, name)).to_i }
        pids.first if pids.size >= count && pids.all?(&:positive?)
      end
    end

    def stop = Processes.signal(:KILL, *Processes.descendants(@pid).map(&:pid), @pid)

    def log = File.exist?(@log) ? File.read(@log) : ""
  end
end
