# frozen_string_literal: true

require_relative "../e2e/support/e2e"

# Support for tests on a real kernel with cgroup v2, on top of that of tests/e2e. They run as root, alone on their machine.
module Guest
  abort "run this with make kernel: it creates cgroups and needs a machine of its own" unless Process.pid < 1000 && File.exist?("/diagctl/arguments")
  MIB = 1 << 20

  # A real cgroup.
  class Cgroup
    MOUNT = "/sys/fs/cgroup"

    attr_reader :dir

    # @param controllers [String, nil] enabled for the groups beneath, for example "+memory +cpu"
    def initialize(dir, controllers: nil, **settings)
      @dir = dir
      Dir.mkdir(dir)
      self["cgroup.subtree_control"] = controllers if controllers
      settings.each { |file, value| self[file] = value }
    end

    # A group beneath this one. Processes live in the leaves.
    def child(name, **settings) = Cgroup.new(File.join(@dir, name), **settings)

    def [](file) = File.read(File.join(@dir, file)).strip

    def []=(file, value)
      File.write(File.join(@dir, file), value.to_s)
    end

    def events = self["memory.events"].lines.to_h { |line| line.split.then { |key, value| [key, value.to_i] } }

    def working_set = self["memory.current"].to_i - self["memory.stat"][/^inactive_file (\d+)/, 1].to_i

    # A command prefix: joins the group, then becomes the command that follows.
    def enter = ["/bin/sh", "-c", "echo $$ > #{@dir}/cgroup.procs && exec \"$@\"", "sh"]

    def remove
      self["cgroup.kill"] = 1
      E2E.wait_until("#{@dir} is empty") do
        E2E::Processes.reap
        self["cgroup.events"].include?("populated 0")
      end
      Dir.glob("#{@dir}/**/").sort.reverse_each { |dir| Dir.rmdir(dir) }
    end
  end

  # A Ruby process in a cgroup that evaluates one line of Ruby at a time.
  class Worker
    attr_reader :pid

    PROGRAM = <<~RUBY
      $stdout.sync = true
      $kept = []
      while (line = $stdin.gets)
        eval(line)
        puts "done"
      end
    RUBY

    def initialize(env, wrapper)
      reader, @stdin = IO.pipe
      @answers, writer = IO.pipe
      libs = E2E::PumaServer::LOAD_PATH
      @pid = Process.spawn(env.merge("RUBYLIB" => libs), *wrapper, RbConfig.ruby, "-e", PROGRAM, in: reader, out: writer, unsetenv_others: true)
      [reader, writer].each(&:close)
      run("nil")
    end

    # Returns when the line is done.
    def run(line)
      @stdin.puts(line)
      answer = @answers.gets
      raise "the worker ended while it did: #{line}" unless answer == "done\n"
    end

    # Allocates anonymous memory and touches it.
    def grow(megabytes) = run("$kept << 'x' * (#{megabytes} << 20)")

    # Fills the page cache: writes a file to the disk and reads it back.
    def read_file(path, megabytes)
      run("system('dd', 'if=/dev/zero', 'of=#{path}', 'bs=1M', 'count=#{megabytes}', 'conv=fsync', err: File::NULL) or raise") unless File.exist?(path)
      run("system('dd', 'if=#{path}', 'of=/dev/null', 'bs=1M', err: File::NULL) or raise")
    end
  end

  # A test with cgroups of its own, which are removed at its end with everything in them.
  class Case < E2E::Case
    ONCE = 'limits = { max_count = 1, window = "1h" }'

    def setup
      super
      @groups = []
    end

    def teardown
      super
    ensure
      @groups.each(&:remove)
    end

    # A group for processes.
    def leaf(**settings)
      Cgroup.new(File.join(Cgroup::MOUNT, "test#{@groups.size}-#{name.delete_prefix('test_')[0, 40]}"), **settings).tap { |group| @groups << group }
    end

    # A group for groups.
    def slice(controllers: "+memory +cpu +pids", **settings) = leaf(controllers: controllers, **settings)

    def worker(group, wrapper: []) = Worker.new(env, group.enter + wrapper)

    # Polls once for that process, and stores a granted capture at once. Returns the answer.
    def poll(process)
      dumper = holder
      dumper.acquire(pid: process.pid)
      return dumper.answer unless dumper.granted?

      dumper.answer.fetch("reports").each { |report| dumper.put(report.fetch("name"), "{}") }
      result = dumper.finalize
      assert result.ok?, result
      dumper.answer
    ensure
      dumper.close
    end

    def poll_until_granted(process, what, deadline: 120)
      answer = nil
      wait_until(what, deadline: deadline, every: 0.3, tell: -> { "#{answer}\n#{diagctl('status', '--explain')}" }) do
        yield if block_given?
        answer = poll(process)
        answer if answer.fetch("verdict") == "granted"
      end
    end

    def refute_granted(answer) = refute_equal("granted", answer.fetch("verdict"), answer)
  end
end
