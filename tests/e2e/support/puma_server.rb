# frozen_string_literal: true

require "net/http"
require "rbconfig"

module E2E
  # A real Puma with the real plugin, on a port of its own choice, in a directory of its own.
  class PumaServer
    LOAD_PATH = %w[ruby/diagctl/lib ruby/puma-plugin/lib].map { |path| File.join(ROOT, path) }.join(":")
    COMMAND = [RbConfig.ruby, Gem.bin_path("puma", "puma")].freeze

    attr_reader :pid, :port, :log_path, :root

    # Set if Puma hung while stopping, through a fault of its own, and one of its processes was killed. Ruby's exit handlers did
    # not run there.
    attr_reader :killed

    # first: lines for the head of puma.rb. initializer: Ruby code that runs while the application is loaded. config_flag: false
    # lets Puma find config/puma.rb by itself. plugin: false leaves diagctl out. wrapper: a command that execs Puma. program: a
    # `puma` other than the installed one. load_path: false leaves it to the bundle to find diagctl.
    def initialize(root, env:, workers: 0, preload: true, port: 0, first: "", initializer: "", config_flag: true, plugin: true,
      wrapper: [], program: COMMAND.last, load_path: true)
      @root = root
      @env = load_path ? env.merge("RUBYLIB" => LOAD_PATH) : env
      @program = program
      @log_path = File.join(root, "puma.log")
      @port = port
      write("config/puma.rb", puma_rb(workers, preload, first, plugin))
      write("config.ru", "#{initializer}\nrequire #{File.join(ROOT, 'demo/app').inspect}\nrun GrowingApp.new\n")
      @wrapper = wrapper
      @flags = config_flag ? ["-C", File.join(root, "config/puma.rb")] : []
    end

    def start(deadline: 60)
      @log_start = File.exist?(@log_path) ? File.size(@log_path) : 0
      @pid = Process.spawn(@env, *@wrapper, *command, *@flags, chdir: directory, in: :close, %i[out err] => [@log_path, "a"],
                           unsetenv_others: true, pgroup: true)
      E2E.wait_until("Puma serves", deadline: deadline, tell: method(:log)) do
        raise "Puma ended\n#{log}" unless Processes.alive?(@pid)

        @port = log[%r{Listening on http://127\.0\.0\.1:(\d+)}, 1].to_i
        @port.positive? && workers.size >= @workers && get("/")
      end
      self
    end

    def command = [RbConfig.ruby, @program]

    def directory = @root

    # The log of this start.
    def log = File.exist?(@log_path) ? File.binread(@log_path, nil, @log_start).to_s.force_encoding("UTF-8").scrub : ""

    def diagctl_lines = log.lines.grep(/diagctl/i)

    # The pids of the processes that serve: workers that have booted, or the only process in single mode.
    def workers
      return [@pid] if @workers.zero?

      booted = log.scan(/- Worker \d+ \(PID: (\d+)\) booted/).flatten.map(&:to_i)
      booted.select { |pid| Processes.alive?(pid) }
    end

    # Returns the body of the answer, or nil if there is none.
    def get(path, timeout: 30 * PATIENCE)
      Net::HTTP.start("127.0.0.1", @port, open_timeout: timeout, read_timeout: timeout, max_retries: 0) do |http|
        answer = http.get(path)
        answer.body if answer.code == "200"
      end
    rescue SystemCallError, IOError, Timeout::Error
      nil
    end

    def stop(deadline: 60)
      Processes.signal(:TERM, @pid)
      E2E.wait_until("Puma ends", deadline: deadline, tell: method(:log)) do
        Processes.reap
        end_what_hangs_in_close
        !Processes.alive?(@pid)
      end
    end

    private

    # Kills processes that hang while stopping. On Ruby 3.3 a Puma can hang forever while it stops, even without diagctl, if
    # another thread happens to be awake (https://github.com/puma/puma/issues/3677): all requests are answered, reactor and pool
    # are gone, and the server's thread never returns from closing the pipe that woke it. Seen in 3 of 40 stops of Puma 8.0.2
    # with `Thread.new { loop { sleep 0.01 } }`. A process is killed only if it has been in exactly this state for seconds.
    def end_what_hangs_in_close
      @hanging ||= {}
      [@pid, *Processes.descendants(@pid).map(&:pid)].each do |pid|
        names = Processes.thread_names(pid)
        next @hanging.delete(pid) if !names.include?("puma srv") || names.grep(/reactor|srv tp/).any?

        @hanging[pid] ||= E2E.clock
        next if E2E.clock - @hanging[pid] <= 5

        Processes.signal(:KILL, pid)
        @killed = true
      end
    end

    def puma_rb(workers, preload, first, plugin)
      @workers = workers
      <<~RUBY
        #{first}
        bind "tcp://127.0.0.1:#{@port}"
        threads 2, 2
        workers #{workers}
        preload_app! #{preload}
        environment "production"
        #{'plugin :diagctl' if plugin}
      RUBY
    end

    def write(name, content)
      path = File.join(@root, name)
      FileUtils.mkdir_p(File.dirname(path))
      File.write(path, content)
    end
  end
end
