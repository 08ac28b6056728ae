# frozen_string_literal: true

module E2E
  # A process that is not a web server. It starts diagctl and then executes commands, one line of Ruby at a time.
  class Script
    def initialize(root, env, wrapper: [], role: "script")
      @log = File.join(root, "script.log")
      program = <<~RUBY
        require "diagctl"
        Diagctl.configure { |c| c.gauge("queue.depth") { $depth } ; c.first_poll_within = 0.01 }
        $depth = 0
        Diagctl.start(role: #{role.inspect}, name: "one") or abort "not started"
        while (line = $stdin.gets)
          eval(line)
        end
      RUBY
      path = File.join(root, "script.rb")
      File.write(path, program)
      reader, @stdin = IO.pipe
      libs = PumaServer::LOAD_PATH
      @pid = Process.spawn(env.merge("RUBYLIB" => libs), *wrapper, RbConfig.ruby, path, in: reader,
                           %i[out err] => [@log, "a"], unsetenv_others: true)
      reader.close
    end

    attr_reader :pid

    def run(line) = @stdin.puts(line)

    def log = File.exist?(@log) ? File.read(@log) : ""
  end
end
