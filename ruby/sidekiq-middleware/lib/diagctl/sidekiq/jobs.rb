# frozen_string_literal: true

module Diagctl
  module Sidekiq
    # A running job. `name` is its class. Its arguments are never read. `rss` is the memory of the process in bytes when the job
    # began; nil when memory is not measured.
    Job = Struct.new(:name, :jid, :queue, :thread, :started, :rss)

    # Totals of the finished jobs of one class, in seconds and bytes. `largest` is nil until a job was measured.
    Tally = Struct.new(:count, :seconds, :grown, :largest)

    # The running jobs of this process, and totals of the finished ones by class. Bounded by the number of threads that run
    # jobs, and by CLASSES. Written by Sidekiq's threads, read by the poll thread.
    #
    # Nothing here raises into a job. Exceptions that another thread raises into the job's thread (Sidekiq::Shutdown, a Timeout)
    # pass through, and therefore StandardError is not rescued.
    #
    # @api private
    class Jobs
      CLASSES = 200
      NAME_LENGTH = 200
      # Classes of running jobs that a poll names, and the names that it can.
      SHOWN = 10
      PLAIN = /\A[A-Za-z0-9_:.-]{1,100}\z/
      OURS = [NoMethodError, TypeError, ArgumentError, IOError, SystemCallError].freeze
      # Replaces the class when there are CLASSES others already, and names that are too long for a class.
      OTHER = "(other)"

      # @return [Rss, nil] nil when memory is not measured
      attr_reader :rss

      def initialize(log)
        @log = log
        @running = {}.compare_by_identity
        @tallies = {}
        @peak = 0
        @lock = Mutex.new
      end

      # From now on, reads the memory of the process before and after each job.
      #
      # @yieldreturn [Rss]
      def measure
        @rss = yield
      rescue SystemCallError, LoadError => e
        @log.warn_once(:job_rss, "memory growth by job is not measured: #{e.message}")
      end

      # Keyed by job, not by thread: `perform_inline` runs a job within a job.
      #
      # @param payload [Hash] as Sidekiq passes it to middleware
      # @return [Job, nil]
      def start(payload, queue)
        now = Clock.now
        job = Job.new(class_name(payload), payload["jid"], queue, Thread.current, now, @rss&.recent(now))
        # Needs no lock: Ruby does not switch threads within one operation on a hash. The same holds for `delete` and `keys`.
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

      # @return [Array<Job>] the longest-running first
      def running
        @running.keys.sort_by(&:started)
      end

      # The work of a process when it died: gauges, of which each recorded poll has those of its moment.
      #
      # @return [Hash{String=>Integer}] number of running jobs of the classes with the most
      def running_by_class
        return {} if @running.empty?

        names = @running.keys.map(&:name).select { |name| PLAIN.match?(name) }
        names.tally.max_by(SHOWN, &:last).to_h { |name, count| ["sidekiq.running.#{name}", count] }
      end

      # @return [Hash{String=>Tally}]
      def tallies
        @lock.synchronize { @tallies.transform_values(&:dup) }
      end

      # The most that the process grew during one job, of those that run now and those that ended since the last call. A job during
      # which the process shrank counts as 0.
      #
      # @return [Integer, nil] bytes; nil when memory is not measured
      def growth
        now = @rss&.bytes or return
        ended = @lock.synchronize { @peak.tap { @peak = 0 } }
        @running.keys.filter_map { |job| now - job.rss if job.rss }.push(ended).max
      end

      private

      # ActiveJob and similar libraries run under one Sidekiq class, and give their own class as `wrapped`.
      def class_name(payload)
        name = payload["wrapped"] || payload["class"]
        name.is_a?(String) ? name : name.to_s
      end

      # Creates the totals of a class.
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
        @log.warn_once(:sidekiq_jobs, "a job could not be recorded: #{error.class}: #{error.message}")
        nil
      end
    end
  end
end
