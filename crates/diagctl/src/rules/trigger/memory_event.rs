//! `memory_event`: a counter of the cgroup's `memory.events` rose. The value at the first poll is the baseline, so that old
//! counts do not fire.

use super::{Condition, Facts, Outcome, View};
use crate::rules::memory::Wanted;
use crate::section::Section;
use crate::state::schedule::RuleState;
use serde::{Deserialize, Serialize};

/// The counters that can be named, as cgroup v2 calls them.
const KNOWN: [&str; 5] = ["max", "high", "oom", "oom_kill", "low"];

/// The keys of `memory_event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvent {
    /// The counters to watch.
    pub events: Vec<String>,
    /// The increase at which the trigger holds.
    pub count: u32,
}

impl Condition for MemoryEvent {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let events = keys.texts("events");
        let count = keys.count("count").unwrap_or(1);
        keys.finish();
        if !keys.has("events") {
            keys.problem("events", "missing", "name the counters: events = [\"max\", \"oom\"]");
        }
        let events = events?;
        for (i, event) in events.iter().enumerate() {
            if !KNOWN.contains(&event.as_str()) {
                let shown = diagctl_fs::quoted(event);
                keys.problem(
                    &format!("events[{i}]"),
                    format!("{shown} is not a counter in memory.events"),
                    format!("use {}", KNOWN.join(", ")),
                );
            }
        }
        if events.is_empty() {
            keys.problem("events", "the list is empty", format!("use {}", KNOWN.join(", ")));
        }
        if count == 0 {
            keys.problem("count", "0 would always hold", "write 1 or more");
        }
        Some(Self { events, count })
    }

    /// Holds while a counter is far enough above its baseline.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let counters = match &view.readings.counters {
            Ok(counters) => counters,
            Err(why) => return Outcome::Unreadable(why.clone()),
        };
        let mut facts = Facts::default();
        let mut rises = Vec::new();
        for event in &self.events {
            let Some(now) = counters.get(event) else { continue };
            let baseline = view.rule.counters.get(&format!("{path}|{event}")).copied().unwrap_or(*now);
            let rise = now.saturating_sub(baseline);
            facts.observed.insert(format!("memory.events.{event}"), (*now).into());
            if rise >= u64::from(self.count) {
                facts.observed.insert("rose".into(), rise.into());
                facts.observed.insert("count".into(), self.count.into());
                facts.reason = format!("memory.events {event} rose by {rise}, from {baseline} to {now}");
                return Outcome::Holds(facts);
            }
            rises.push(format!("{event} {rise}"));
        }
        if rises.is_empty() {
            return Outcome::Unreadable(format!("memory.events has no counter {}", self.events.join(", ")));
        }
        facts.reason = format!("memory.events rose by {} of {}", rises.join(", "), self.count);
        Outcome::Waits(facts, None)
    }

    fn is_about_the_process(&self) -> bool {
        false
    }

    fn want(&self, wanted: &mut Wanted) {
        wanted.counters = true;
    }

    /// Sets the baseline of a new counter, and lowers it if the counter went down, as in a new cgroup.
    fn prepare(&self, path: &str, view: View<'_>, _seed: u64, state: &mut RuleState) {
        let Ok(counters) = &view.readings.counters else { return };
        for event in &self.events {
            if let Some(now) = counters.get(event) {
                let baseline = state.counters.entry(format!("{path}|{event}")).or_insert(*now);
                *baseline = (*baseline).min(*now);
            }
        }
    }

    /// Moves the baselines to the present counts.
    fn fired(&self, path: &str, view: View<'_>, _seed: u64, state: &mut RuleState) {
        let Ok(counters) = &view.readings.counters else { return };
        for event in &self.events {
            if let Some(now) = counters.get(event) {
                state.counters.insert(format!("{path}|{event}"), *now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::Bench;

    #[test]
    fn a_rise_fires_once_and_a_first_value_or_new_cgroup_is_a_baseline() {
        let event = MemoryEvent { events: vec!["max".into(), "oom".into()], count: 2 };
        let mut bench = Bench::default();
        assert!(matches!(event.evaluate("t", bench.view()), Outcome::Unreadable(_)));
        let mut seen = Vec::new();
        for (max, oom) in [(7, 0), (8, 0), (9, 0), (9, 0), (1, 0), (1, 2)] {
            bench.readings.counters = Ok([("max".to_owned(), max), ("oom".to_owned(), oom)].into());
            bench.prepare(|view, state| event.prepare("t", view, 0, state));
            let holds = matches!(event.evaluate("t", bench.view()), Outcome::Holds(_));
            if holds {
                bench.fired(|view, state| event.fired("t", view, 0, state));
            }
            seen.push(holds);
        }
        assert_eq!(seen, [false, false, true, false, false, true]);
    }
}
