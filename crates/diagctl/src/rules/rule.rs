//! A rule as the operator declared it, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diagctl_store::ReportName;
use diagctl_store::pattern::is_like;
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
    /// The number of captures of the same process that follow the first one.
    pub follow_ups: u32,
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
    /// Patterns of which the process's role must match one; none for every role.
    pub role: Option<Vec<String>>,
    /// Patterns of which its name must match one; none for every name.
    pub name: Option<Vec<String>>,
}

impl Match {
    /// Returns true if the rule applies to a process of this role and name.
    pub fn accepts(&self, role: &str, name: &str) -> bool {
        let is_one = |patterns: &Vec<String>, text| patterns.iter().any(|one| is_like(one, text));
        self.role.as_ref().is_none_or(|patterns| is_one(patterns, role))
            && self.name.as_ref().is_none_or(|patterns| is_one(patterns, name))
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
            ["jemalloc_stats", "gc_stat", "smaps", "threads"].into_iter().filter_map(ReportName::parse).collect(),
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
        follow_ups: 0,
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

/// Returns the reports of a capture that names none: cheap, and enough to see what kind of memory it is.
pub fn routine_reports() -> Vec<ReportName> {
    routine().reports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_applies_to_processes_that_are_like_one_of_its_patterns() {
        type Names = &'static [&'static str];
        let table: [(Names, Names, &str, &str, bool); 14] = [
            (&[], &[], "puma", "worker-0", true),
            (&["puma"], &[], "puma", "worker-0", true),
            (&["puma"], &[], "sidekiq", "worker-0", false),
            (&["puma", "sidekiq"], &[], "sidekiq", "", true),
            (&[], &["worker-*"], "puma", "worker-12", true),
            (&[], &["worker-?"], "puma", "worker-12", false),
            (&[], &["worker-??"], "puma", "worker-12", true),
            (&[], &["*-1*"], "puma", "worker-12", true),
            (&[], &["*-3*"], "puma", "worker-12", false),
            (&[], &["*"], "puma", "", true),
            (&[], &["?"], "puma", "é", true),
            (&[], &["w*r*-1"], "puma", "worker-11", false),
            (&["side*"], &["high", "low*"], "sidekiq", "lowest", true),
            (&["side*"], &["high", "low*"], "sidekiq", "mid", false),
        ];
        for (roles, names, role, name, expected) in table {
            let list = |patterns: &[&str]| {
                let list: Vec<String> = patterns.iter().map(|one| (*one).to_owned()).collect();
                Some(list).filter(|list| !list.is_empty())
            };
            let matching = Match { role: list(roles), name: list(names) };
            assert_eq!(matching.accepts(role, name), expected, "{matching:?} {role} {name}");
        }
    }
}
