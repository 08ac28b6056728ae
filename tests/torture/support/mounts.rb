# frozen_string_literal: true

require "fiddle"
require_relative "torture"

module Torture
  # Filesystems for a single test. They are mounted in a mount namespace of this process, so that no other process sees them and
  # the kernel unmounts them when this process ends.
  module Mounts
    CLONE_NEWNS = 0x20000
    EXT4_IOC_SHUTDOWN = 0x8004587D
    NO_LOG_FLUSH = 2
    SET_USER_QUOTA = (0x800008 << 8) - (1 << 32) # QCMD(Q_SETQUOTA, USRQUOTA) as an int
    QIF_BLIMITS = 1

    module_function

    # Returns the reason why filesystems cannot be mounted here, or nil.
    def refusal
      return @refusal if defined?(@refusal)

      @refusal = Process.euid.zero? ? leave_namespace : "only root can mount"
    end

    def leave_namespace
      unshare = Fiddle::Function.new(Fiddle::Handle::DEFAULT["unshare"], [Fiddle::TYPE_INT], Fiddle::TYPE_INT)
      return "unshare(CLONE_NEWNS) is not allowed here" unless unshare.call(CLONE_NEWNS).zero?

      result = E2E::Command.run("mount", "--make-rprivate", "/", env: ENV.to_h)
      result.ok? ? nil : result.to_s
    end

    # Mounts a filesystem on a directory, which is created, for the duration of the block.
    def mounted(dir, *flags)
      Dir.mkdir(dir) unless File.directory?(dir)
      mount(dir, *flags)
      yield dir
    ensure
      unmount(dir)
    end

    def mount(dir, *flags) = command("mount", *flags, dir)

    def unmount(dir) = E2E::Command.run("umount", dir, env: ENV.to_h)

    def command(*argv)
      result = E2E::Command.run(*argv, env: ENV.to_h)
      raise result.to_s unless result.ok?
    end

    # Sets a user's limit on a device, in KiB. Calls quotactl directly, because the tool may not be installed and one call is
    # enough.
    def quota(device, uid, kib)
      limits = [kib, kib, 0, 0, 0, 0, 0, 0, QIF_BLIMITS].pack("Q8L")
      types = [Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP, Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP]
      quotactl = Fiddle::Function.new(Fiddle::Handle::DEFAULT["quotactl"], types, Fiddle::TYPE_INT)
      quotactl.call(SET_USER_QUOTA, device, uid, limits).zero? or raise SystemCallError.new("quotactl", Fiddle.last_error)
    end

    # Returns the bytes in use on the filesystem of an open directory at one instant. A path would not do: Ruby may run a new thread on a
    # kernel thread that it kept from before this process left its mount namespace.
    def used(directory)
      @fstatvfs ||= Fiddle::Function.new(Fiddle::Handle::DEFAULT["fstatvfs"], [Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP], Fiddle::TYPE_INT)
      result = "\0" * 256
      @fstatvfs.call(directory.fileno, result).zero? or raise SystemCallError.new("fstatvfs", Fiddle.last_error)
      # f_bsize, f_frsize, f_blocks, f_bfree
      _, fragment, blocks, free = result.unpack("Q4")
      (blocks - free) * fragment
    end

    # Cuts the power: everything that the filesystem has not made durable is lost.
    def cut_power(dir) = File.open(dir) { |file| file.ioctl(EXT4_IOC_SHUTDOWN, [NO_LOG_FLUSH].pack("L")) }
  end
end
