# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # Records the running job. Yields once, returns the job's value, and lets every exception of the job pass.
    # `Diagctl::Sidekiq.install` puts it first in the chain.
    #
    # Thread of the job. Sidekiq creates one object per job.
    class ServerMiddleware
      def initialize(jobs = Sidekiq.jobs)
        @jobs = jobs
      end

      def call(_instance, payload, queue)
        job = @jobs.start(payload, queue)
        yield
      ensure
        @jobs.finish(job) if job
      end
    end
  end
end
