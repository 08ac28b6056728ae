# frozen_string_literal: true

module Bench
  # Runs a command and observes it through /proc. Its stdout is a full pipe, so that the command blocks when it prints its
  # result; its peak memory and the bytes that it read can be seen then. (The kernel's figure for an ended process includes the
  # memory that its parent had at the fork.) A command that reads stdin is observed before it gets any data.
  class Watched
    Cost = Struct.new(:cpu, :wall, :memory, :read, :status)
    F_SETPIPE_SZ = 1031
    PIPE = 4096
    READ_0 = /\A0 0x0 /
    WRITE_1 = /\A1 0x1 /
    PATIENCE = 300

    def self.run(env, argv, **options) = new(env, argv, **options).run

    # The median of each figure separately.
    def self.median(costs)
      Cost.new(*%i[cpu wall memory read].map { |name| costs.map(&name).compact.sort.then { |list| list[list.size / 2] } }, 0)
    end

    def self.sum(costs) = Cost.new(costs.sum(&:cpu), costs.sum(&:wall), costs.map(&:memory).compact.max, costs.map(&:read).compact.sum, 0)

    def initialize(env, argv, lease: nil, data: nil, out: +"")
      @env = env
      @argv = argv
      @data = data
      @out = out
      @inherited = lease ? { lease.fileno => lease.fileno } : {}
    end

    def run
      reader, writer = full_pipe
      input, feed = IO.pipe
      before = Process.times
      start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      @pid = Process.spawn(@env, *@argv, in: input, out: writer, err: File::NULL, unsetenv_others: true, **@inherited)
      [input, writer].each(&:close)
      look_until(@data ? READ_0 : WRITE_1)
      feed.write(@data) if @data
      feed.close
      drain(reader)
      Process.wait(@pid)
      wall = Process.clock_gettime(Process::CLOCK_MONOTONIC) - start
      after = Process.times
      Cost.new(after.cutime + after.cstime - before.cutime - before.cstime, wall, @memory, @read, $?.exitstatus)
    end

    private

    def full_pipe
      reader, writer = IO.pipe(binmode: true)
      writer.fcntl(F_SETPIPE_SZ, PIPE)
      writer.write("\0" * PIPE)
      [reader, writer]
    end

    # Observes the process once it waits in this system call. Returns without a figure if it has ended.
    def look_until(call)
      (PATIENCE * 2000).times do
        return look if call.match?(File.read("/proc/#{@pid}/syscall"))
        return if ended?

        sleep 0.0005
      end
      abort "no end: #{@argv.join(' ')}"
    rescue Errno::ESRCH, Errno::ENOENT
      nil
    end

    def ended? = File.read("/proc/#{@pid}/stat")[/\) (\S)/, 1] == "Z"

    def look
      memory = File.read("/proc/#{@pid}/status")[/VmHWM:\s*(\d+)/, 1] or return
      @memory = memory.to_i * 1024
      @read = File.read("/proc/#{@pid}/io")[/rchar: (\d+)/, 1].to_i
    rescue Errno::ESRCH, Errno::ENOENT
      nil
    end

    def drain(reader)
      reader.read(PIPE)
      reader.fcntl(F_SETPIPE_SZ, 1 << 20)
      while (chunk = reader.read(1 << 20))
        look
        @out << chunk if @out.bytesize < 1 << 20
      end
    end
  end
end
