//! The result of deciding: the answer to a poll, and the plans for captures.

use crate::rules::RuleName;
use crate::rules::trigger::Observed;
use crate::state::samples::Sample;
use crate::state::schedule::State;
use diagctl_store::ReportName;
use diagctl_store::staging::Snapshot;

/// The verdict of `acquire`, in ascending order of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Captures are switched off.
    Disabled,
    /// Nothing is due.
    Idle,
    /// A condition holds, but not for long enough yet.
    Pending,
    /// A rule fired too recently.
    Cooldown,
    /// A rule, or all rules together, fired too often.
    Throttled,
    /// A guard refuses.
    Guarded,
    /// Another process holds the lease.
    Busy,
    /// The capture may be taken.
    Granted,
}

impl Verdict {
    /// Returns the word that stands for the verdict in an answer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Idle => "idle",
            Self::Pending => "pending",
            Self::Cooldown => "cooldown",
            Self::Throttled => "throttled",
            Self::Guarded => "guarded",
            Self::Busy => "busy",
            Self::Granted => "granted",
        }
    }
}

/// The answer of one rule at this poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The rule's name; `on_demand` for a request without a rule.
    pub rule: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason, in one sentence.
    pub reason: String,
    /// The guard that refuses, if any.
    pub guard: Option<&'static str>,
    /// The figures that the rule saw.
    pub observed: Observed,
    /// Milliseconds until the answer can change by itself, if known.
    pub wait_ms: Option<u64>,
    /// Set when the trigger could not be read at this poll.
    pub skipped: bool,
    /// Set when only `mode = "dry_run"` prevents a capture.
    pub dry_run: bool,
    /// Set when this answer is final for the events that the rule watches: the condition does not hold, or the rule's own limit
    /// refuses. A refusal by anything else (a guard, a budget, the lease) may turn into a grant at a later poll.
    pub settles: bool,
}

impl Answer {
    /// Creates an answer that belongs to no rule.
    pub fn plain(verdict: Verdict, reason: String) -> Self {
        Self {
            rule: String::new(),
            verdict,
            reason,
            guard: None,
            observed: Observed::new(),
            wait_ms: None,
            skipped: false,
            dry_run: false,
            settles: false,
        }
    }
}

/// An event that led to no capture, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The rule that watches the event.
    pub rule: String,
    /// The event and the reason, in one sentence.
    pub reason: String,
}

/// A capture that may be taken if the lease is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The rule's name.
    pub rule: RuleName,
    /// The trigger's name.
    pub trigger: &'static str,
    /// The reason.
    pub reason: String,
    /// The figures that the trigger saw.
    pub observed: Observed,
    /// The reports, cheapest first.
    pub reports: Vec<ReportName>,
    /// The way in which snapshots are made.
    pub snapshot: Snapshot,
    /// The request that the capture serves.
    pub request: Option<String>,
    /// Sequence number of the first capture, if this is the second of a pair.
    pub second_of: Option<u64>,
}

impl Plan {
    /// The answer if the plan is granted.
    pub fn granted(&self) -> Answer {
        Answer {
            rule: self.rule.to_string(),
            observed: self.observed.clone(),
            ..Answer::plain(Verdict::Granted, self.reason.clone())
        }
    }
}

/// The decision of one poll: the answers, the plans and the changes.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The captures that may be taken, in order. The first that passes the checks under the lease is taken.
    pub plans: Vec<Plan>,
    /// The answers of all rules, for explanations.
    pub answers: Vec<Answer>,
    /// The names of the rules that answer the event for which the caller waits.
    pub awaited: Vec<String>,
    /// Events that would have led to a capture if nothing had refused.
    pub dropped: Vec<Dropped>,
    /// Milliseconds until the next poll is worthwhile.
    pub retry_ms: u64,
    /// The changes for the caller to write.
    pub changes: Changes,
}

/// The new state of the store and the new sample of the polling process.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The new state. Equal to the given state if there is nothing to write.
    pub state: State,
    /// The process's new sample.
    pub sample: Sample,
}

impl Decision {
    /// Returns the strongest of the answers. If the caller waits for the answer to an event, it is that of a rule on the event.
    pub fn strongest(&self) -> Answer {
        let is_awaited = |answer: &&Answer| self.awaited.contains(&answer.rule);
        // Among equals the first wins: rules are in the order of the file.
        let strongest = self.answers.iter().rev().filter(is_awaited).max_by_key(|answer| answer.verdict);
        let strongest = strongest.or_else(|| self.answers.iter().rev().max_by_key(|answer| answer.verdict));
        strongest.cloned().unwrap_or_else(|| {
            let reason = "no rule is about this process, and no request waits for it";
            Answer::plain(Verdict::Idle, reason.to_owned())
        })
    }
}
