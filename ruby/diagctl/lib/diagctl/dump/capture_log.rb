# frozen_string_literal: true

module Diagctl
  # Logs how a capture ended. Worker: poll thread, or the caller of Diagctl.capture.
  #
  # @api private
  class CaptureLog
    FINALIZE = "`diagctl finalize`"
    # Exit statuses of `diagctl finalize`: everything is stored, or a part of it.
    STORED = 0
    STORED_IN_PART = 5

    def initialize(log)
      @log = log
    end

    # @param seconds [Float] how long the capture took
    # @param outcome [Outcome] of `diagctl finalize`, or of a dumper that did not get that far
    # @return [String, nil] why the capture broke off. The caller must tell the store, which publishes what is whole
    def record(grant, seconds, outcome, name: FINALIZE)
      label = "capture #{grant.capture} (#{grant.rule})"
      unless stored?(grant, outcome)
        reason = outcome.describe(name, after: seconds)
        @log.warn("#{label}: #{reason}")
        return reason
      end

      in_part, hint = " in part", "; see `diagctl show #{grant.capture}`" if outcome.code == STORED_IN_PART
      @log.info("#{label} stored#{in_part} after #{seconds.round(1)} s#{hint}")
      nil
    end

    # @param outcome [Outcome] of `diagctl finalize --broken-off`
    def salvaged(grant, outcome)
      return unless stored?(grant, outcome)

      @log.info("capture #{grant.capture} (#{grant.rule}): what was finished is stored; see `diagctl show #{grant.capture}`")
    end

    private

    def stored?(grant, outcome)
      case outcome.kind
      when :exited then [STORED, STORED_IN_PART].include?(outcome.code)
      # The application took the exit status. `diagctl finalize` prints the capture once it is stored.
      when :unknown then outcome.stdout.include?(grant.capture)
      end
    end
  end
end
