# frozen_string_literal: true

module Diagctl
  # The declarations of `Diagctl.configure`. The setters raise ArgumentError to the code that calls them.
  # Written at boot, on any thread; read by the poll thread at every poll, because an initializer may run after it started.
  class Configuration
    NAME = /\A[a-z][a-z0-9_]{0,63}\z/
    GAUGE = /\A(?=.{1,128}\z)[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\z/

    # Seconds, in the order of the README.
    TIMES = {
      acquire_timeout: 60.0,   # one `diagctl acquire`, including native reports and `exec` triggers
      capture_timeout: 15.0,   # one `diagctl acquire` in Diagctl.capture, while the application waits
      put_timeout: 60.0,       # one inline report into `diagctl put`
      finalize_timeout: 300.0, # `diagctl finalize` of a capture without a fork
      inline_budget: 2.0,      # after this no further inline report is started
      callback_timeout: 5.0,   # one block of the application: enabled, a gauge, a report
      backoff: 10.0,           # first wait after a failure; doubles each time
      backoff_max: 600.0,
      first_poll_within: 1.0   # processes that boot together spread their first poll over this
    }.freeze

    attr_reader :logger, :gauges, :reports, :labels, :enabled_block, *TIMES.keys

    def initialize
      @gauges = {}
      @reports = {}
      @labels = {}
      TIMES.each { |name, seconds| instance_variable_set(:"@#{name}", seconds) }
    end

    # The application's switch, evaluated before every poll. nil, false and an exception mean "off".
    def enabled(&block)
      raise ArgumentError, "diagctl: enabled needs a block, for example: c.enabled { Feature.on? }" unless block

      @enabled_block = block
    end

    # A number for the operator's rules, evaluated before every poll.
    def gauge(name, &block)
      name = checked(name, GAUGE, "gauge", "like \"cache.entries\": lowercase letters, digits, _ and dots, at most 128 characters")
      raise ArgumentError, "diagctl: gauge #{name.inspect} needs a block that returns a number" unless block

      @gauges = @gauges.merge(name => block)
    end

    # A report of the application. The block writes it to the given IO.
    def report(name, &block)
      name = checked(name, NAME, "report", "like :cache: lowercase letters, digits and _, at most 64 characters")
      if Reports::BUILT_IN.key?(name)
        raise ArgumentError, "diagctl: report #{name.inspect} is built in; choose another name"
      end
      raise ArgumentError, "diagctl: report #{name.inspect} needs a block that writes to the given IO" unless block

      @reports = @reports.merge(name => block)
    end

    # A label of every capture of this process: a value, or a block that is called at each capture.
    def label(name, value = nil, &block)
      name = checked(name, NAME, "label", "like :git_sha: lowercase letters, digits and _, at most 64 characters")
      if value.nil? && block.nil?
        raise ArgumentError, "diagctl: label #{name.inspect} needs a value or a block, for example: c.label(:git_sha, ENV[\"GIT_SHA\"].to_s)"
      end

      @labels = @labels.merge(name => block || Diagctl.one_line(value))
    end

    def logger=(logger)
      unless logger.nil? || (logger.respond_to?(:info) && logger.respond_to?(:warn))
        raise ArgumentError, "diagctl: logger #{logger.class} has no methods info and warn; use a Logger, or nil for $stderr"
      end

      @logger = logger
    end

    TIMES.each_key do |name|
      define_method(:"#{name}=") do |seconds|
        unless seconds.is_a?(Numeric) && seconds.real? && seconds.to_f.finite? && seconds.positive?
          raise ArgumentError, "diagctl: #{name} #{seconds.inspect} is not a duration; use a number of seconds above 0, " \
            "like #{TIMES[name]}"
        end

        instance_variable_set(:"@#{name}", seconds.to_f)
      end
    end

    private

    def checked(name, pattern, what, hint)
      string = name.is_a?(Symbol) || name.is_a?(String) ? name.to_s : ""
      raise ArgumentError, "diagctl: #{what} #{name.inspect} is not a valid name; use one #{hint}" unless pattern.match?(string)

      string.dup.freeze
    end
  end
end
