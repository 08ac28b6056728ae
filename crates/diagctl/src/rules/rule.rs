//! A rule as the operator declared it, checked.

use diagctl_store::ReportName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diagctl_store::report_kind;
use diagctl_store::staging::Snapshot;
use serde::{Deserialize, Serialize};

use super::RuleName;
use super::limit::LimitsOfRule;
use super::trigger::{Timer, Trigger};

/// The sources of keys that a rule did not set itself, by key.
pub type Origins = BTreeMap<String, String>;

/// A checked rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The name, under which state is kept.
    pub name: RuleName,
    /// The reports, cheapest first.
    pub reports: Vec<ReportName>,
    /// The condition.
    pub trigger: Trigger,
    /// The processes that the rule applies to.
    pub matching: Match,
    /// The time for which the condition must hold.
    pub hold_for: Duration,
    /// The choice among several processes.
    pub select: Select,
    /// The percentage of hosts on which the rule is in force on any one day.
    pub sample: f64,
    /// The delay of a second capture of the same process, for comparison, if there is to be one.
    pub pair_delay: Option<Duration>,
    /// The rule's own limits.
    pub limits: LimitsOfRule,
    /// The mode: capture, or only report what would be captured.
    pub mode: Mode,
    /// The way in which snapshot reports are made.
    pub snapshot: Snapshot,
    /// The sources of keys that do not come from the rule itself, by key.
    #[serde(skip)]
    pub origins: Origins,
    /// The trigger as written, for display.
    #[serde(skip)]
    pub declared_trigger: toml::Table,
}

/// The keys of `match`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The process's role.
    pub role: Option<String>,
    /// The worker's name.
    pub name: Option<String>,
}

impl Match {
    /// Returns true if the rule applies to a process of this role and name.
    pub fn accepts(&self, role: &str, name: &str) -> bool {
        self.role.as_deref().is_none_or(|wanted| wanted == role)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

/// The values of `select`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Select {
    /// The first process that polls.
    First,
    /// The process with the largest resident set.
    Largest,
    /// Each process in turn.
    RoundRobin,
}

/// The values of `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Capture.
    Enforce,
    /// Do everything except capture.
    DryRun,
}

/// Returns the rule that applies if the configuration has none.
pub fn routine() -> Rule {
    Rule {
        name: RuleName::routine(),
        reports: in_order(
            ["jemalloc_stats", "gc_stat", "smaps_rollup", "threads"]
                .into_iter()
                .filter_map(ReportName::parse)
                .collect(),
        ),
        trigger: Trigger::Timer(Timer {
            every: Duration::from_secs(2 * 3600),
            jitter: Duration::from_secs(600),
            initial_delay: Duration::from_secs(900),
        }),
        matching: Match::default(),
        hold_for: Duration::ZERO,
        select: Select::Largest,
        sample: 100.0,
        pair_delay: None,
        limits: LimitsOfRule::default(),
        mode: Mode::Enforce,
        snapshot: Snapshot::Fork,
        origins: Origins::new(),
        declared_trigger: toml::toml! { timer = { every = "2h", jitter = "10m", initial_delay = "15m" } },
    }
}

/// Sorts reports into the order in which they are produced, and removes duplicates: cheapest first. The application's reports
/// come after diagctl's inline reports, but before `cpu_profile`, which takes long.
pub fn in_order(mut names: Vec<ReportName>) -> Vec<ReportName> {
    let application = report_kind::builtin("cpu_profile").map_or(0, |(rank, _)| rank);
    names.sort_by_key(|name| report_kind::builtin(name).map_or((application, 0), |(rank, _)| (rank, 1)));
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Returns the reports of a capture for which nobody named any: cheap, and enough to see what kind of memory it is.
pub fn routine_reports() -> Vec<ReportName> {
    routine().reports
}
