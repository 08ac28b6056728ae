# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # One job while it runs. `name` is the class. Arguments are never looked at. `rss` is what the process used when it
    # began, in bytes, or nil when that is not asked for.
    Job = Struct.new(:name, :jid, :queue, :thread, :started, :rss)

    # What the jobs of one class came to. Bytes; `largest` is nil until a job was measured.
    Tally = Struct.new(:count, :seconds, :grown, :largest)

    # The jobs that this process runs, and what those that ended came to, by class. Bounded by the threads that run
    # jobs, and by CLASSES. Written by Sidekiq's threads, read by the poll thread.
    #
    # Nothing here raises into a job, and what another thread raises into the one of the job (Sidekiq::Shutdown, a Timeout)
    # passes: so it is not StandardError that is rescued.
    #
    # @api private
    class Jobs
      CLASSES = 200
      NAME_LENGTH = 200
      OURS = [NoMethodError, TypeError, ArgumentError, IOError, SystemCallError].freeze
      # For the classes that come after CLASSES others, and for names that no class has.
      OTHER = "(other)"

      # @return [Rss, nil] nil where memory is not measured
      attr_reader :rss

      def initialize(log)
        @log = log
        @running = {}.compare_by_identity
        @tallies = {}
        @peak = 0
        @lock = Mutex.new
      end

      # From now on the memory of the process is read before and after each job.
      #
      # @yieldreturn [Rss]
      def measure
        @rss = yield
      rescue SystemCallError, LoadError => e
        @log.warn_once(:job_rss, "no memory change by job: #{e.message}")
      end

      # By identity and not by thread: `perform_inline` runs a job within a job.
      #
      # @param payload [Hash] as Sidekiq hands it to its middleware
      # @return [Job, nil]
      def start(payload, queue)
        now = Clock.now
        job = Job.new(class_name(payload), payload["jid"], queue, Thread.current, now, @rss&.recent(now))
        # Ruby does not switch threads within one operation on a hash, so this needs no lock; nor do `delete` and `keys`.
        @running[job] = true
        job
      rescue *OURS => e
        broken(e)
      end

      def finish(job)
        @running.delete(job)
        now = Clock.now
        grown = @rss.bytes(now) - job.rss if @rss && job.rss
        @lock.synchronize { add(@tallies[job.name] || tally(job.name), now - job.started, grown) }
      rescue *OURS => e
        broken(e)
      end

      def busy
        @running.size
      end

      # @return [Array<Job>] the one that runs longest first
      def running
        @running.keys.sort_by(&:started)
      end

      # @return [Hash{String=>Tally}]
      def tallies
        @lock.synchronize { @tallies.transform_values(&:dup) }
      end

      # The most by which the process grew during one job: of those that run now, and of those that ended since this
      # was last asked. A job that shrank it counts as 0.
      #
      # @return [Integer, nil] bytes; nil when memory is not measured
      def growth
        now = @rss&.bytes or return
        ended = @lock.synchronize { @peak.tap { @peak = 0 } }
        @running.keys.filter_map { |job| now - job.rss if job.rss }.push(ended).max
      end

      private

      # ActiveJob and its like run under one class of Sidekiq's, and name their own in `wrapped`.
      def class_name(payload)
        name = payload["wrapped"] || payload["class"]
        name.is_a?(String) ? name : name.to_s
      end

      # For a name that has none yet.
      def tally(name)
        name = OTHER if name.length > NAME_LENGTH || @tallies.size >= CLASSES
        @tallies[name] ||= Tally.new(0, 0.0, 0, nil)
      end

      def add(tally, seconds, grown)
        tally.count += 1
        tally.seconds += seconds
        return if grown.nil?

        tally.grown += grown
        tally.largest = grown if tally.largest.nil? || grown > tally.largest
        @peak = grown if grown > @peak
      end

      def broken(error)
        @rss = nil if error.is_a?(SystemCallError)
        @log.warn_once(:sidekiq_jobs, "a job was not recorded: #{error.class}: #{error.message}")
        nil
      end
    end
  end
end
