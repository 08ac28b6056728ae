# frozen_string_literal: true

module Diagctl
  # The result of a poll, or of Diagctl.capture.
  #
  # `verdict` is one of the verdicts of `diagctl acquire`, or "failed" when diagctl itself could not do its work. `capture` is
  # the id of the capture when it was granted. `rule` is the name of the rule that decided, if one did; `on_demand` for a request
  # without a rule of its own. `retry_after` and `poll_interval` are seconds.
  Result = Struct.new(:verdict, :reason, :capture, :rule, :retry_after, :poll_interval, keyword_init: true) do
    def granted?
      verdict == "granted"
    end
  end
end
