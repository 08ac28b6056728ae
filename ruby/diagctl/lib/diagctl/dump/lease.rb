# frozen_string_literal: true

module Diagctl
  # The open file description that a grant lives on: opened anew for every poll, handed to `acquire`, passed on to
  # the dumper, and closed here at once. Its lock is the binary's business; this side only opens and closes, and
  # never says LOCK_UN, because that would end the lease for the dumper too.
  #
  # @api private
  class Lease
    FILE = "lease.lock"
    # F_DUPFD_CLOEXEC of Linux; Fcntl names it only from Ruby 3.2 on.
    DUPFD_CLOEXEC = 1030

    class << self
      # @return [String, nil] path of the lease file while a description of it may be open in this process
      attr_accessor :in_flight
    end

    # @yieldparam lease [Lease] open during the block at most
    # @raise [Problem]
    def self.open(dir)
      path = File.join(dir, FILE)
      # Before the open, so that the fork guard sees a description that another thread forks at this very moment.
      self.in_flight = path
      lease = new(path)
      yield lease
    ensure
      lease&.close
      self.in_flight = nil
    end

    # Takes the lease's description away from a forked child that is not the dumper (see ForkGuard). The numbers are
    # pointed at /dev/null and not closed: a File object of the parent's poll thread still holds its number, and the
    # garbage collector would later close whatever the application opened under it.
    def self.disown
      path = in_flight or return
      self.in_flight = nil
      lease = File.stat(path)
      null = File.open(File::NULL)
      Dir.children("/proc/self/fd").each do |name|
        stat = File.stat("/proc/self/fd/#{name}")
        next unless stat.ino == lease.ino && stat.dev == lease.dev

        IO.for_fd(name.to_i, autoclose: false).reopen(null)
      rescue SystemCallError, ArgumentError
        next
      end
    rescue SystemCallError
      nil
    ensure
      null&.close
    end

    attr_reader :io

    def initialize(path)
      @path = path
      @io = distinct(open_existing || create)
    rescue Errno::ELOOP
      raise Problem.new(:lease, "#{path} is a symbolic link and is not followed " \
        "(hint: someone replaced it; remove the link, the next poll creates the file)")
    rescue SystemCallError => e
      raise Problem.new(:lease, "#{Diagctl.one_line(path)} cannot be opened: #{Diagctl.one_line(e.message)} (hint: #{hint(e)})")
    end

    def close
      @io&.close
    end

    private

    def hint(error)
      case error
      when Errno::EROFS then "the store must be on a writable filesystem; set DIAGCTL_DIR"
      when Errno::ENOSPC, Errno::EDQUOT then "make room on its filesystem"
      when Errno::EMFILE, Errno::ENFILE then "this process has as many open files as its limit lets it"
      else "the directory must belong to the user of this process: #{Process.euid}"
      end
    end

    FLAGS = File::RDWR | File::NOFOLLOW | File::NONBLOCK

    def open_existing
      File.open(@path, FLAGS)
    rescue Errno::ENOENT
      nil
    end

    def create
      io = File.open(@path, FLAGS | File::CREAT | File::EXCL, 0o600)
      give_to_owner(io)
      io
    rescue Errno::EEXIST
      File.open(@path, FLAGS)
    end

    # A root process beside workers of another user must not leave them a file that they cannot open.
    def give_to_owner(io)
      return unless Process.euid.zero?

      store = File.stat(File.dirname(@path))
      io.chown(store.uid, store.gid) unless store.uid.zero?
    end

    # posix_spawn has to dup2 the lease onto Spawn::LEASE_FD to make it inheritable. Onto itself that leaves
    # FD_CLOEXEC set before glibc 2.29.
    def distinct(io)
      return io unless io.fileno == Spawn::LEASE_FD

      moved = File.for_fd(io.fcntl(DUPFD_CLOEXEC, 10), "r+")
      io.close
      moved
    end
  end
end
