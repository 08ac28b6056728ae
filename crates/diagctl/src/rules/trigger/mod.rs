//! The conditions of rules. Each trigger is one file: its keys, its pure evaluation, its tests.
//!
//! To add a trigger, write a file with a type that implements [`Condition`], and add one line to `triggers!` below.

mod condition;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

pub use condition::Condition;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::rules::memory::{Metric, Wanted};
use crate::rules::readings::Readings;
use crate::section::Section;
use crate::state::samples::{Marks, Named};
use crate::state::schedule::RuleState;

/// The figures that a trigger saw, and its thresholds, by name: bytes or plain numbers.
pub type Observed = BTreeMap<String, Number>;

macro_rules! triggers {
    ($($(#[$doc:meta])* $key:ident: $condition:ident,)*) => {
        $(mod $key;)*
        $(pub use $key::$condition;)*

        /// A condition, possibly composed of others.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Trigger {
            $($(#[$doc])* $condition($condition),)*
            /// At least one of these holds.
            Any(Vec<Trigger>),
            /// All of these hold at the same poll.
            All(Vec<Trigger>),
        }

        impl Trigger {
            /// The names of all triggers.
            #[cfg(any(test, fuzzing))]
            pub const NAMES: &[&str] = &[$(stringify!($key),)* "any", "all"];

            // Every key is asked for, so that each is known to the hints for misspelt keys.
            fn parse_conditions(section: &Section<'_>) -> Vec<Option<Self>> {
                let mut found = Vec::new();
                $(if let Some(keys) = section.section(stringify!($key)) {
                    found.push($condition::parse(&keys).map(Self::$condition));
                })*
                found
            }

            // The single condition, unless this is a composition.
            fn condition(&self) -> Option<&dyn Condition> {
                match self {
                    $(Self::$condition(condition) => Some(condition),)*
                    Self::Any(_) | Self::All(_) => None,
                }
            }

            /// Evaluates the condition. `path` identifies this trigger's marks within its rule.
            pub fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
                match self {
                    $(Self::$condition(condition) => condition.evaluate(path, view),)*
                    Self::Any(parts) => any(parts, path, view),
                    Self::All(parts) => all(parts, path, view),
                }
            }

            /// Returns the name in reports and messages, which is the key in the configuration.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$condition(_) => stringify!($key),)*
                    Self::Any(_) => "any",
                    Self::All(_) => "all",
                }
            }
        }
    };
}

// The order is part of the cached configuration, which only the same version of the program reads.
triggers! {
    /// A timer is due.
    timer: Timer,
    /// Memory is above a level.
    memory_usage: MemoryUsage,
    /// Memory is above a baseline.
    memory_growth: MemoryGrowth,
    /// Memory has reached a new maximum.
    high_water: HighWater,
    /// Memory is about to reach the limit.
    memory_projection: MemoryProjection,
    /// The kernel counted an event in the cgroup.
    memory_event: MemoryEvent,
    /// Tasks are stalled for memory.
    memory_pressure: MemoryPressure,
    /// A number from the application is beyond a threshold.
    gauge: Gauge,
    /// The application named an event.
    event: Event,
    /// An operator's command exited with 0.
    exec: Exec,
    /// A person asked for a capture.
    on_demand: OnDemand,
}

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

impl Trigger {
    /// Parses a trigger table, which must contain exactly one trigger.
    pub fn parse(section: &Section<'_>) -> Option<Self> {
        let mut found = Self::parse_conditions(section);
        for (key, compose) in [("any", Self::Any as fn(Vec<Self>) -> Self), ("all", Self::All)] {
            if let Some(parts) = section.sections(key) {
                if parts.is_empty() {
                    section.problem(key, "the list is empty", "add at least one trigger");
                }
                // Invalid parts are left out. The file is rejected anyway, and doubts about the valid parts are reported as
                // well.
                found.push(Some(compose(parts.iter().filter_map(Self::parse).collect())));
            }
        }
        section.finish();
        match section.keys().len() {
            1 => found.pop().flatten(),
            0 => {
                section.problem("timer", "no trigger is given", "use for example trigger.timer = { every = \"2h\" }");
                None
            }
            _ => {
                let keys = section.keys().join(", ");
                section.problem(
                    "any",
                    format!("a rule has one trigger, this one has several ({keys})"),
                    "combine them: trigger.any = [ { … }, { … } ] or trigger.all = [ … ]",
                );
                None
            }
        }
    }

    // Every single condition in the trigger, with its path.
    fn each<'t>(&'t self, path: &str, see: &mut dyn FnMut(&str, &'t dyn Condition)) {
        if let Self::Any(parts) | Self::All(parts) = self {
            for (i, part) in parts.iter().enumerate() {
                part.each(&format!("{path}.{i}"), see);
            }
        }
        if let Some(condition) = self.condition() {
            see(path, condition);
        }
    }

    /// Updates the rule's state before an evaluation: sets new timers and re-arms levels. `seed` is random.
    pub fn prepare(&self, path: &str, view: View<'_>, seed: u64, state: &mut RuleState) {
        self.each(path, &mut |path, condition| condition.prepare(path, view, seed, state));
    }

    /// Updates the rule's state after the rule fired: moves due timers on and disarms crossed levels.
    pub fn fired(&self, path: &str, view: View<'_>, seed: u64, state: &mut RuleState) {
        self.each(path, &mut |path, condition| condition.fired(path, view, seed, state));
    }

    /// Records this poll's figures for the next one. They belong to the process's sample and are volatile.
    pub fn observe(&self, path: &str, view: View<'_>, marks: &mut Marks) {
        self.each(path, &mut |path, condition| condition.observe(path, view, marks));
    }

    /// Visits this trigger and all triggers in it.
    pub fn visit<'t>(&'t self, see: &mut dyn FnMut(&'t Self)) {
        see(self);
        if let Self::Any(parts) | Self::All(parts) = self {
            for part in parts {
                part.visit(see);
            }
        }
    }

    fn conditions(&self) -> Vec<&dyn Condition> {
        let mut conditions = Vec::new();
        self.visit(&mut |trigger| conditions.extend(trigger.condition()));
        conditions
    }

    /// Adds the figures that the trigger needs.
    pub fn want(&self, wanted: &mut Wanted) {
        self.visit(&mut |trigger| {
            if let Some(condition) = trigger.condition() {
                condition.want(wanted);
            }
        });
    }

    /// Returns true if part of the trigger depends on the polling process itself, so that it can hold for one process and not
    /// for another.
    pub fn is_about_the_process(&self) -> bool {
        self.conditions().iter().any(|condition| condition.is_about_the_process())
    }

    /// Returns true if only timers, requests and events decide, so that nothing has to be sampled between two due times.
    pub fn is_timers_only(&self) -> bool {
        !self.conditions().iter().any(|condition| condition.is_sampled())
    }

    /// Returns the commands in the trigger, by path.
    pub fn execs<'t>(&'t self, path: &str) -> Vec<(String, &'t Exec)> {
        match self {
            Self::Exec(exec) => vec![(path.to_owned(), exec)],
            Self::Any(parts) | Self::All(parts) => {
                parts.iter().enumerate().flat_map(|(i, part)| part.execs(&format!("{path}.{i}"))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the events that the trigger watches.
    pub fn events(&self) -> Vec<&str> {
        let mut events = Vec::new();
        self.visit(&mut |trigger| {
            if let Self::Event(event) = trigger {
                events.push(event.name.as_str());
            }
        });
        events
    }

    /// Returns the trigger's `on_demand` part, if a request can fire it.
    pub fn on_demand(&self) -> Option<&OnDemand> {
        let mut found = None;
        self.visit(&mut |trigger| {
            if let Self::OnDemand(on_demand) = trigger {
                found = Some(on_demand);
            }
        });
        found
    }
}

fn any(parts: &[Trigger], path: &str, view: View<'_>) -> Outcome {
    let mut waiting = Facts::default();
    let mut next = None::<u64>;
    let mut unreadable = None;
    for (i, part) in parts.iter().enumerate() {
        match part.evaluate(&format!("{path}.{i}"), view) {
            Outcome::Holds(facts) => return Outcome::Holds(facts),
            Outcome::Waits(facts, at) => {
                waiting.join(facts, "; ");
                next = [next, at].into_iter().flatten().min();
            }
            Outcome::Unreadable(why) => unreadable = Some(why),
        }
    }
    match unreadable {
        Some(why) => Outcome::Unreadable(why),
        None => Outcome::Waits(waiting, next),
    }
}

fn all(parts: &[Trigger], path: &str, view: View<'_>) -> Outcome {
    let mut holding = Facts::default();
    let mut waiting = None::<(Facts, Option<u64>)>;
    for (i, part) in parts.iter().enumerate() {
        match part.evaluate(&format!("{path}.{i}"), view) {
            Outcome::Holds(facts) => holding.join(facts, " and "),
            Outcome::Waits(facts, at) => {
                let entry = waiting.get_or_insert_default();
                entry.0.join(facts, "; ");
                // `all` cannot hold before the last of its waiting parts; a part without a time does not count.
                entry.1 = entry.1.max(at);
            }
            Outcome::Unreadable(why) => return Outcome::Unreadable(why),
        }
    }
    match waiting {
        Some((facts, at)) => Outcome::Waits(facts, at),
        None => Outcome::Holds(holding),
    }
}

/// Parses `of` and `metric` of a trigger that can watch any figure.
fn any_metric(keys: &Section<'_>) -> Metric {
    let of = keys.choice("of", &[("process", "process"), ("cgroup", "cgroup"), ("host", "host")]);
    let named = named_metric(keys);
    match of.unwrap_or("process") {
        "process" => named.unwrap_or(Metric::Rss),
        other => {
            if named.is_some() {
                keys.problem(
                    "metric",
                    format!("of = {other:?} has only one metric"),
                    "remove `metric`, or set of = \"process\"",
                );
            }
            if other == "cgroup" { Metric::WorkingSet } else { Metric::HostUsed }
        }
    }
}

/// Parses `metric` of a trigger that watches the process.
fn process_metric(keys: &Section<'_>) -> Metric {
    named_metric(keys).unwrap_or(Metric::Rss)
}

fn named_metric(keys: &Section<'_>) -> Option<Metric> {
    keys.choice("metric", &[("rss", Metric::Rss), ("pss", Metric::Pss), ("uss", Metric::Uss), ("anon", Metric::Anon)])
}

/// Returns the key under which a trigger keeps marks for the owner of its figure: the process, the cgroup or the host.
fn subject_key(path: &str, metric: Metric, view: View<'_>) -> String {
    let subject = if metric.is_of_process() { view.subject } else { metric.name() };
    format!("{path}|{subject}")
}

/// Returns true if an application may use this name for a gauge or an event.
pub fn is_application_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '=')
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is below zero is shown as zero")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// Formats a number as it was given: 5 and not 5.0, -3, 0.25.
#[expect(clippy::cast_possible_truncation, reason = "a double of this size is a whole number exactly")]
fn figure(value: f64) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return (value as i64).into();
    }
    Number::from_f64(value).unwrap_or_else(|| 0.into())
}

impl Facts {
    fn join(&mut self, other: Self, between: &str) {
        if !self.reason.is_empty() && !other.reason.is_empty() {
            self.reason.push_str(between);
        }
        self.reason.push_str(&other.reason);
        self.observed.extend(other.observed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::memory::Metric;
    use crate::units::Amount;

    fn usage(metric: Metric, above: u64) -> Trigger {
        Trigger::MemoryUsage(MemoryUsage { metric, above: vec![Amount::Bytes(above)], rearm_below: None })
    }

    #[test]
    fn any_and_all_combine_and_an_unreadable_part_hides_no_true_one() {
        let mut bench = testing::Bench::default();
        bench.readings.memory.set(Metric::Rss, Ok(100));
        bench.readings.memory.set(Metric::HostUsed, Err("no meminfo".into()));
        let view = bench.view();
        let (yes, no, blind) = (usage(Metric::Rss, 50), usage(Metric::Rss, 200), usage(Metric::HostUsed, 1));
        let table = [
            (Trigger::Any(vec![no.clone(), yes.clone()]), "holds"),
            (Trigger::Any(vec![no.clone(), no.clone()]), "waits"),
            (Trigger::Any(vec![blind.clone(), yes.clone()]), "holds"),
            (Trigger::Any(vec![blind.clone(), no.clone()]), "unreadable"),
            (Trigger::All(vec![yes.clone(), yes.clone()]), "holds"),
            (Trigger::All(vec![yes.clone(), no.clone()]), "waits"),
            (Trigger::All(vec![yes, blind]), "unreadable"),
        ];
        for (trigger, expected) in table {
            let got = match trigger.evaluate("t", view) {
                Outcome::Holds(_) => "holds",
                Outcome::Waits(..) => "waits",
                Outcome::Unreadable(_) => "unreadable",
            };
            assert_eq!(got, expected, "{trigger:?}");
        }
    }
}
