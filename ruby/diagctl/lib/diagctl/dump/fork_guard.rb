# frozen_string_literal: true

module Diagctl
  # Keeps the lease, and the pipe into a `diagctl put`, out of every forked child except the dumper: Puma's `fork_worker`, and the
  # application's own forks. Such a child would hold the lock for as long as it lives, even after the dumper was killed, and the
  # put would wait for its end.
  #
  # Runs in the forked child, on the thread that forked. Installed by `Diagctl.start`, never by `require`.
  #
  # @api private
  module ForkGuard
    def self.install
      Process.singleton_class.prepend(self) unless Process.singleton_class.include?(self)
    end

    # Ruby's own fork, below all hooks on `Process._fork`. The dumper is not a worker of the application: nobody should restart
    # threads in it, or reset connections that it only has to let go of.
    def self.raw_fork
      beneath.call
    end

    # @return [Method]
    def self.beneath
      @beneath ||= begin
        method = Process.method(:_fork)
        while (beneath = method.super_method)
          method = beneath
        end
        method
      end
    end
    private_class_method :beneath

    def _fork
      pid = super
      if pid.zero?
        Lease.disown
        Pipes.disown
      end
      pid
    end
  end
end
