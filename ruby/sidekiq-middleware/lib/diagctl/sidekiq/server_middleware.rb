# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # Records which job runs. It yields once, gives back what the job gave back, and lets everything pass that the job
    # raises. `Diagctl::Sidekiq.install` puts it first in the chain.
    #
    # Thread of the job. Sidekiq makes one object a job.
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
