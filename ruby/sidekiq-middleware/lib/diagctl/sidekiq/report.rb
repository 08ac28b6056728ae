# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # Running jobs, their duration, and the jobs during which the process grew: gauges, and the report `sidekiq`.
    # Poll thread.
    #
    # @api private
    class Report
      # Jobs in one report at most. No process has so many threads.
      JOBS = 1000
      LENGTH = 200
      # Growth of at least this share of the most is a tie.
      TIE = 0.9

      def initialize(server, jobs)
        @server = server
        @jobs = jobs
      end

      # @param latency [Boolean] whether to ask Redis before every poll
      def gauges(latency:)
        gauges = { "sidekiq.busy" => -> { @jobs.busy }, "sidekiq.job_rss_growth" => -> { @jobs.growth } }
        gauges["sidekiq.queue_latency"] = -> { queue_latency } if latency
        gauges
      end

      def call(io, _options)
        now = Clock.now
        rss = @jobs.rss&.bytes
        running = @jobs.running.first(JOBS).map { |job| job(job, now, rss) }
        classes = @jobs.tallies.map { |name, tally| tally(name, tally) }
        capsules = @server.capsules
        io.write(JSON.generate(
          version: @server.version,
          tag: @server.name,
          concurrency: capsules.values.sum { |capsule| capsule[:concurrency] },
          queues: @server.queues,
          capsules: capsules,
          busy: running.size,
          jobs: running,
          classes: classes.sort_by { |entry| [-(entry[:rss_growth_bytes] || 0), -entry[:seconds]] },
          grew_most: grew_most(running, classes)
        ))
      end

      private

      # In a thread of its own, with a deadline, because Redis may hang.
      def queue_latency
        Callback.call("gauge sidekiq.queue_latency", Diagctl.configuration.callback_timeout) { @server.latency }
      end

      def job(job, now, rss)
        {
          class: text(job.name), jid: text(job.jid), queue: text(job.queue), seconds: (now - job.started).round(3),
          # The same number as in the report `threads`.
          tid: job.thread.native_thread_id, rss_growth_bytes: (rss - job.rss if rss && job.rss)
        }.compact
      end

      def tally(name, tally)
        measured = { rss_growth_bytes: tally.grown, rss_growth_max_bytes: tally.largest } if tally.largest
        { class: text(name), count: tally.count, seconds: tally.seconds.round(3), **measured.to_h }
      end

      # The one job during which the process grew most. The growth of a process counts for every job that ran meanwhile, so jobs
      # of several classes with nearly the same growth ran side by side, and none of them is to blame.
      def grew_most(running, classes)
        candidates = running.map { |job| { **job.slice(:class, :jid), running: true, bytes: job[:rss_growth_bytes] } }
        candidates += classes.map { |entry| { class: entry[:class], running: false, bytes: entry[:rss_growth_max_bytes] } }
        candidates.select! { |candidate| candidate[:bytes]&.positive? }
        most = candidates.max_by { |candidate| candidate[:bytes] } or return
        tied = candidates.select { |candidate| candidate[:bytes] >= most[:bytes] * TIE }
        return if tied.map { |candidate| candidate[:class] }.uniq.size > 1

        tied.size > 1 ? most.except(:jid) : most
      end

      # Bounds the text, which comes from Redis and can have any length and bytes.
      def text(value)
        Diagctl.one_line(value, LENGTH)
      end
    end
  end
end
