# frozen_string_literal: true

module Diagctl
  # The open file description that carries the lease: opened for every poll, handed to `diagctl acquire`, passed on to the dumper,
  # and closed here at once. The program locks it. This side only opens and closes it, and never unlocks (LOCK_UN), because that
  # would end the lease for the dumper too.
  # Poll thread, or the caller of Diagctl.capture; `disown` runs in forked children.
  #
  # @api private
  class Lease
    FILE = "lease.lock"
    # Linux's F_DUPFD_CLOEXEC, which Fcntl defines from Ruby 3.2 on.
    DUPFD_CLOEXEC = 1030

    class << self
      # @return [String, nil] path of the lease file while it may be open in this process
      attr_accessor :in_flight
    end

    # @yieldparam lease [Lease] open during the block at most
    # @raise [Problem]
    def self.open(dir)
      path = File.join(dir, FILE)
      # Set before the file is opened, so that the fork guard notices when another thread forks at this moment.
      self.in_flight = path
      lease = new(path)
      yield lease
    ensure
      lease&.close
      self.in_flight = nil
    end

    # Takes the lease's description away from a forked child that is not the dumper (see ForkGuard). Its descriptors are
    # redirected to /dev/null, not closed. A File object of the parent's poll thread still holds the number, and the garbage
    # collector would later close whatever the application opened under that number.
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
        "(hint: remove the link; the next poll creates the file)")
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
      when Errno::ENOSPC, Errno::EDQUOT then "free space on its filesystem"
      when Errno::EMFILE, Errno::ENFILE then "this process has reached its limit of open files"
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

    # A root process must not leave a file behind that workers of another user cannot open.
    def give_to_owner(io)
      return unless Process.euid.zero?

      store = File.stat(File.dirname(@path))
      io.chown(store.uid, store.gid) unless store.uid.zero?
    end

    # posix_spawn uses dup2 to give the program the lease as Spawn::LEASE_FD. If that is already its number, dup2 leaves FD_CLOEXEC
    # set (glibc before 2.29).
    def distinct(io)
      return io unless io.fileno == Spawn::LEASE_FD

      begin
        File.for_fd(io.fcntl(DUPFD_CLOEXEC, 10), "r+")
      ensure
        io.close
      end
    end
  end
end
