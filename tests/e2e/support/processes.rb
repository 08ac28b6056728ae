# frozen_string_literal: true

require "fiddle"
require_relative "wait"

module E2E
  # The processes below this test process. The test process is a subreaper: a dumper whose worker is gone becomes its child, so
  # that every process a test started can be found.
  module Processes
    PR_SET_CHILD_SUBREAPER = 36

    Entry = Struct.new(:pid, :ppid, :argv) do
      def binary?(command)
        File.basename(argv.first.to_s) == "diagctl" && argv.include?(command)
      end

      # The forked child sets a title of its own while it dumps. Before that it looks like a Puma worker, and at the end it
      # becomes `diagctl finalize`.
      def dumper? = argv.first.to_s.start_with?("diagctl: dumping")
    end

    module_function

    def become_subreaper
      long = Fiddle::TYPE_LONG
      prctl = Fiddle::Function.new(Fiddle::Handle::DEFAULT["prctl"], [Fiddle::TYPE_INT, long, long, long, long], Fiddle::TYPE_INT)
      raise "prctl(PR_SET_CHILD_SUBREAPER) failed" unless prctl.call(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).zero?
    end

    # Leaves processes alone that serve several tests.
    def spare(pids) = spared.concat(pids)

    def spared = @spared ||= []

    # The descendants of a process that polls, but for the poll that may be under way. Until it execs, it looks like its parent.
    def descendants_but_polls(root)
      own = argv(root)
      descendants(root).reject { |process| process.argv.include?("acquire") || process.argv == own }
    end

    # Zombies are left out, because they hold no resources.
    def descendants(root = Process.pid)
      children = Hash.new { |hash, ppid| hash[ppid] = [] }
      Dir.children("/proc").grep(/\A\d+\z/).each do |pid|
        state, ppid = File.read("/proc/#{pid}/stat").rpartition(") ").last.split
        children[ppid.to_i] << [pid.to_i, state]
      rescue SystemCallError
        next
      end
      found = []
      queue = [root]
      while (ppid = queue.shift)
        children[ppid].each do |pid, state|
          next if spared.include?(pid)

          queue << pid
          found << Entry.new(pid, ppid, argv(pid)) unless state == "Z"
        end
      end
      found
    end

    def argv(pid)
      File.read("/proc/#{pid}/cmdline").split("\0")
    rescue SystemCallError
      []
    end

    def alive?(pid)
      File.read("/proc/#{pid}/stat").rpartition(") ").last[0] != "Z"
    rescue SystemCallError
      false
    end

    def thread_names(pid)
      Dir.glob("/proc/#{pid}/task/*/comm").map { |path| File.read(path).chomp }
    rescue SystemCallError
      []
    end

    # Only root can look into a process that is not dumpable; for other users the list is empty.
    def sockets(pid)
      Dir.children("/proc/#{pid}/fd").filter_map do |fd|
        target = File.readlink("/proc/#{pid}/fd/#{fd}")
        target if target.start_with?("socket:")
      rescue Errno::ENOENT
        nil
      end
    rescue Errno::EACCES
      []
    end

    # Returns a value of /proc/PID/status as a number.
    def status(pid, key)
      File.read("/proc/#{pid}/status")[/^#{key}:\s*(\d+)/, 1].to_i
    end

    # Returns the bytes that the threads of a process have written to any file. /proc/PID/io would include children that it has
    # reaped.
    def written(pid)
      Dir.glob("/proc/#{pid}/task/*/io").sum { |path| File.read(path)[/^wchar: (\d+)/, 1].to_i }
    end

    def signal(name, *pids)
      pids.each do |pid|
        Process.kill(name, pid)
      rescue Errno::ESRCH
        next
      end
    end

    # Kills and reaps everything below this process.
    def sweep
      deadline = E2E.clock + 30
      until (left = descendants).empty?
        raise "could not end #{left}" if E2E.clock > deadline

        signal(:KILL, *left.map(&:pid))
        reap
        sleep 0.01
      end
      reap
    end

    def reap
      loop { break unless Process.wait(-1, Process::WNOHANG) }
    rescue Errno::ECHILD
      nil
    end
  end
end
