//! The input and the result of an evaluation.

use std::collections::BTreeMap;

use serde_json::Number;

use crate::rules::readings::Readings;
use crate::state::samples::{Marks, Named};
use crate::state::schedule::RuleState;

/// The figures that a trigger saw, and its thresholds, by name: bytes or plain numbers.
pub type Observed = BTreeMap<String, Number>;

/// Everything that an evaluation may use.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Present position on the store's time line, milliseconds.
    pub now_ms: u64,
    /// Time of the polling process's first poll, on the same time line.
    pub first_seen_ms: u64,
    /// The rule's name.
    pub name: &'a str,
    /// The rule's state.
    pub rule: &'a RuleState,
    /// The figures that the process's last sample keeps for this rule, by path.
    pub marks: &'a Marks,
    /// The readings of this poll.
    pub readings: &'a Readings,
    /// The polling process, as a text that is different for every process.
    pub subject: &'a str,
    /// Events that the process named and this rule has not answered.
    pub named: &'a Named,
    /// Set if a request is pending for this rule and this process.
    pub requested: bool,
}

/// The result of evaluating a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition holds.
    Holds(Facts),
    /// The condition does not hold; with the time at which it will hold by itself, if known.
    Waits(Facts, Option<u64>),
    /// The condition could not be evaluated, with the reason.
    Unreadable(String),
}

/// The reason for an outcome, with its figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// One clause: `rss 1.62 GiB is above 1.50 GiB`.
    pub reason: String,
    /// The figures behind the reason.
    pub observed: Observed,
}

impl Facts {
    pub(super) fn join(&mut self, other: Self, between: &str) {
        if !self.reason.is_empty() && !other.reason.is_empty() {
            self.reason.push_str(between);
        }
        self.reason.push_str(&other.reason);
        self.observed.extend(other.observed);
    }
}
