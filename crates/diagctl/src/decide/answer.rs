//! What deciding comes to: the words of a poll's answer, and what may be captured.

use crate::config::Snapshot;
use crate::sample::Sample;
use crate::state::State;
use crate::trigger::Observed;

/// What `acquire` answers, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Switched off.
    Disabled,
    /// Nothing is due.
    Idle,
    /// A condition holds, not yet long enough.
    Pending,
    /// A rule fired too recently.
    Cooldown,
    /// A rule, or everything together, fired too often.
    Throttled,
    /// A guard refuses.
    Guarded,
    /// Somebody holds the lease.
    Busy,
    /// Go ahead.
    Granted,
}

impl Verdict {
    /// The word in the answer.
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

/// What one rule says at this poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The rule; `on_demand` for a request without one.
    pub rule: String,
    /// What it says.
    pub verdict: Verdict,
    /// Why, in one sentence.
    pub reason: String,
    /// The guard, when one refuses.
    pub guard: Option<&'static str>,
    /// The figures it saw.
    pub observed: Observed,
    /// Milliseconds until it may say something else by itself, where that is known.
    pub wait_ms: Option<u64>,
    /// Its trigger could not be read at this poll.
    pub skipped: bool,
    /// Were it not for `mode = "dry_run"` there would be a capture.
    pub dry_run: bool,
    /// It is the last word on the events that the rule was asked about: the condition does not hold, or the rule's own limit
    /// refuses. What others refuse (a guard, a budget, the lease) may be granted at a later poll.
    pub settles: bool,
}

impl Answer {
    /// An answer that no rule gives.
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

/// An event that came to nothing, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The rule that looks at it.
    pub rule: String,
    /// Which event and why, in one sentence.
    pub reason: String,
}

/// A capture that may be taken if the lease can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The rule.
    pub rule: String,
    /// The trigger's name.
    pub trigger: &'static str,
    /// Why.
    pub reason: String,
    /// The figures.
    pub observed: Observed,
    /// The reports, cheapest first.
    pub reports: Vec<String>,
    /// How snapshots are made.
    pub snapshot: Snapshot,
    /// The request that is served.
    pub request: Option<String>,
    /// Sequence number of the first capture, when this is the second of a pair.
    pub second_of: Option<u64>,
}

impl Plan {
    /// The answer when it is granted.
    pub fn granted(&self) -> Answer {
        Answer {
            rule: self.rule.clone(),
            observed: self.observed.clone(),
            ..Answer::plain(Verdict::Granted, self.reason.clone())
        }
    }
}

/// What is to be answered, captured and written.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What may be captured: the first that nothing speaks against at the last moment is.
    pub plans: Vec<Plan>,
    /// What every rule says, for explanations.
    pub answers: Vec<Answer>,
    /// Events that rules would have captured for, had nothing refused.
    pub dropped: Vec<Dropped>,
    /// Milliseconds until the next poll is worth while.
    pub retry_ms: u64,
    /// What the poll taught, for the caller to write.
    pub changes: Changes,
}

/// The state of the store and the sample of the polling process, brought up to date.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Replaces the state. Equal to the one that was given where there is nothing to write.
    pub state: State,
    /// Replaces the process's sample.
    pub sample: Sample,
}

impl Decision {
    /// The strongest of the answers.
    pub fn strongest(&self) -> Answer {
        // Of equals the first: rules stand in the order of the file.
        let strongest = self.answers.iter().rev().max_by_key(|answer| answer.verdict);
        strongest.cloned().unwrap_or_else(|| {
            let reason = "no rule is about this process, and no request waits for it";
            Answer::plain(Verdict::Idle, reason.to_owned())
        })
    }
}
