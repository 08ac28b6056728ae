//! Everything that a decision depends on.

use std::borrow::Cow;

use crate::clock::Now;
use crate::rules::guard::{Figures, Guards};
use crate::rules::limit::Limits;
use crate::rules::readings::Readings;
use crate::rules::rule::Rule;
use crate::state::samples::{Sample, Samples};
use crate::state::schedule::State;
use diagctl_store::Process;
use diagctl_store::requests::Request;

/// The operator's part of a decision.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The rules, in the order of the file.
    pub rules: &'a [Rule],
    /// The budgets of the whole store.
    pub limits: &'a Limits,
    /// The checks that can refuse any capture.
    pub guards: &'a Guards,
    /// The time between two polls, in milliseconds.
    pub poll_ms: u64,
    /// The costs of reports.
    pub costs: &'a dyn Costs,
}

/// The costs of reports, in units of the budgets.
pub trait Costs {
    /// Returns the cost of one report.
    fn cost_of(&self, report: &str) -> u32;
}

/// Everything that a decision depends on.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The configuration.
    pub settings: Settings<'a>,
    /// The polling process.
    pub process: &'a Process,
    /// The readings of this poll.
    pub readings: &'a Readings,
    /// The pending requests, oldest first.
    pub requests: &'a [Request],
    /// The figures for the guards.
    pub figures: &'a Figures,
    /// This machine's name, for rules that are in force on only some machines.
    pub host: &'a str,
    /// The current time.
    pub now: &'a Now,
    /// A random number, for jitter.
    pub seed: u64,
    /// The store's state.
    pub state: &'a State,
    /// The process's sample from its last poll, if there was one.
    pub sample: Option<&'a Sample>,
    /// The other processes.
    pub others: &'a dyn Others,
}

/// The samples of all processes. Loaded only when a rule that would fire has to choose among processes, because reading them
/// costs more than the rest of a poll.
pub trait Others {
    /// Loads the samples.
    fn samples(&self) -> Cow<'_, Samples>;
}

impl Others for Samples {
    fn samples(&self) -> Cow<'_, Samples> {
        Cow::Borrowed(self)
    }
}
