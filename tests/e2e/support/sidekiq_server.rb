# frozen_string_literal: true

require "rbconfig"

module E2E
  # A real Sidekiq with the real middleware, in a directory and on a Redis of its own.
  class SidekiqServer
    LOAD_PATH = %w[ruby/diagctl/lib ruby/sidekiq-middleware/lib].map { |path| File.join(ROOT, path) }.join(":")

    # The jobs that tests push. A waiting job waits until its file exists, at most as long as a test may take.
    JOBS = <<~RUBY
      KEPT = []
      def wait_for(file)
        200.times { |i| File.exist?(file) ? break : sleep(i < 20 ? 0.02 : 0.5) }
      end

      class Bloat
        include Sidekiq::Job
        def perform(megabytes, file, _secret = nil)
          KEPT.concat(Array.new(megabytes * 1024) { |i| i.to_s.ljust(1000, "x") })
          wait_for(file)
        end
      end

      class Patient
        include Sidekiq::Job
        def perform(file)
          File.write(file + ".begun", "")
          wait_for(file)
        rescue Exception => e
          File.write(file + ".raised", e.class.name)
          raise
        end
      end

      class Boom
        include Sidekiq::Job
        Odd = Class.new(StandardError)
        def perform(message) = raise(Odd, message)
      end

      class Touch
        include Sidekiq::Job
        def perform(file) = File.write(file, "")
      end
    RUBY

    class << self
      # Asks the library itself, in a separate process.
      def version = @version ||= ask("print Sidekiq::VERSION")

      # Capsules and the embedded mode were introduced together, in 7.0.
      def capsules? = (@capsules ||= ask("print Sidekiq.respond_to?(:configure_embed)")) == "true"

      private

      def ask(code) = IO.popen([RbConfig.ruby, "-rsidekiq", "-e", code], &:read)
    end

    attr_reader :pid, :log_path

    # install: the options of Diagctl::Sidekiq.install. server: lines for configure_server. plain: true leaves diagctl out.
    def initialize(root, redis, env:, name: "sidekiq", flags: [], install: "", server: "", head: "", plain: false)
      @root = root
      @redis = redis
      @env = env.merge("RUBYLIB" => LOAD_PATH, "REDIS_URL" => redis.url)
      @log_path = File.join(root, "#{name}.log")
      @app = File.join(root, "#{name}.rb")
      @flags = ["-r", @app, "-c", "2", "-t", "2", "-e", "production", "-g", name, *flags]
      File.write(@app, <<~RUBY)
        #{head}
        require "sidekiq"
        #{'require "diagctl/sidekiq"' unless plain}
        #{JOBS}
        #{'Diagctl.configure { |c| c.first_poll_within = 0.01 }' unless plain}
        Sidekiq.configure_server do |config|
          #{server}
          #{"Diagctl::Sidekiq.install(config#{install.empty? ? '' : ", #{install}"})" unless plain}
        end
      RUBY
    end

    def start
      spawn(RbConfig.ruby, Gem.bin_path("sidekiq", "sidekiq"), *@flags)
      await { @redis.call("SMEMBERS", "processes").any? { |identity| identity.include?(":#{@pid}:") } }
    end

    # Starts the same jobs in a Ruby process that runs an embedded Sidekiq.
    def start_embedded
      File.write(@app, <<~RUBY, mode: "a")
        instance = Sidekiq.configure_embed { |config| config.queues = %w[default] }
        instance.run
        reader, writer = IO.pipe
        trap(:TERM) { writer.write_nonblock("!") }
        reader.read(1)
        instance.stop
      RUBY
      spawn(RbConfig.ruby, @app)
      await { @redis.call("SMEMBERS", "processes").any? { |identity| identity.include?(":#{@pid}:") } }
    end

    def log = File.exist?(@log_path) ? File.binread(@log_path).force_encoding("UTF-8").scrub : ""

    # Returns the messages from diagctl, and the warnings from Ruby or Sidekiq about files of its gems.
    def diagctl_lines = log.lines.grep(%r{\[diagctl\]|Diagctl|ruby/(diagctl|sidekiq-middleware)/})

    def signal(name) = Processes.signal(name, @pid)

    def stop
      signal(:TERM)
      await_end
    end

    def await_end
      E2E.wait_until("Sidekiq ends", tell: method(:log)) { Processes.reap.then { !Processes.alive?(@pid) } }
    end

    private

    def spawn(*command)
      @pid = Process.spawn(@env, *command, chdir: @root, in: :close, %i[out err] => [@log_path, "a"], unsetenv_others: true, pgroup: true)
    end

    def await
      E2E.wait_until("Sidekiq is up", tell: method(:log)) do
        raise "Sidekiq ended\n#{log}" unless Processes.alive?(@pid)

        yield
      end
      self
    end
  end
end
