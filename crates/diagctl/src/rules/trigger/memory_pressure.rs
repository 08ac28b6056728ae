//! `memory_pressure`: the share of time since the last poll in which tasks were stalled for memory. Computed from the growth of
//! PSI's `total`, so that the window is the poll interval and not one of the kernel's averages.
//!
//! Source: Documentation/accounting/psi.rst.

use super::{Condition, Facts, Outcome, View, figures};
use crate::rules::memory::Wanted;
use crate::section::Section;
use crate::state::samples::{Mark, Marks};
use diagctl_observe::pressure::Scope;
use serde::{Deserialize, Serialize};

/// The kind of stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// At least one task was stalled.
    Some,
    /// All tasks were stalled.
    Full,
}

/// The keys of `memory_pressure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryPressure {
    /// The scope of the stalls. Without it: the cgroup's if it has the figure, otherwise the host's.
    pub of: Option<Scope>,
    /// The kind of stall.
    pub kind: Kind,
    /// The threshold, in percent of the time.
    pub above: f64,
}

impl Condition for MemoryPressure {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let of = keys.choice("of", &[("cgroup", Scope::Cgroup), ("host", Scope::Host)]);
        let kind = keys.choice("kind", &[("some", Kind::Some), ("full", Kind::Full)]).unwrap_or(Kind::Some);
        let above = keys.percent("above");
        keys.finish();
        if !keys.has("above") {
            keys.problem("above", "missing", "set the share of stalled time: above = \"20%\"");
        }
        if above.is_some_and(|above| above >= 100.0) {
            keys.problem("above", "no more than 100% of the time can be stalled", "20% is already a lot");
        }
        Some(Self { of, kind, above: above? })
    }

    /// Holds when the stalled share of time is above the threshold.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one poll interval")]
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let (scope, total) = match self.total(view) {
            Ok(found) => found,
            Err(why) => return Outcome::Unreadable(why),
        };
        let whose = scope.name();
        let mut facts = Facts::default();
        let last = view.marks.get(path).filter(|last| view.now_ms > last.at && total as f64 >= last.value);
        let Some(last) = last else {
            facts.reason = format!("the first look at the {whose}'s memory pressure");
            return Outcome::Waits(facts, None);
        };
        let elapsed_us = (view.now_ms - last.at) as f64 * 1000.0;
        let share = ((total as f64 - last.value) / elapsed_us * 100.0).min(100.0);
        facts.observed.insert("stalled_percent".into(), figures::figure((share * 10.0).round() / 10.0));
        facts.observed.insert("above".into(), figures::figure(self.above));
        let holds = share > self.above;
        facts.reason = format!(
            "memory pressure of the {whose} {share:.1}% is {} {}%",
            if holds { "above" } else { "not above" },
            self.above
        );
        if holds { Outcome::Holds(facts) } else { Outcome::Waits(facts, None) }
    }

    fn is_about_the_process(&self) -> bool {
        false
    }

    fn want(&self, wanted: &mut Wanted) {
        wanted.stalls = true;
    }

    /// Remembers the total for the next poll.
    #[expect(clippy::cast_precision_loss, reason = "microseconds since boot are exact in a double for centuries")]
    fn observe(&self, path: &str, view: View<'_>, marks: &mut Marks) {
        if let Ok((_, total)) = self.total(view) {
            marks.insert(path.to_owned(), Mark { value: total as f64, at: view.now_ms });
        }
    }
}

impl MemoryPressure {
    fn total(&self, view: View<'_>) -> Result<(Scope, u64), String> {
        let read = |scope: Scope| {
            let unread = || Err("memory pressure was not read".to_owned());
            let stalls = view.readings.stalls.get(&scope).cloned().unwrap_or_else(unread)?;
            Ok((scope, if self.kind == Kind::Some { stalls.some } else { stalls.full }))
        };
        match self.of {
            Some(scope) => read(scope),
            None => read(Scope::Cgroup).or_else(|_: String| read(Scope::Host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::Bench;
    use diagctl_observe::pressure::Stalls;

    #[test]
    fn the_percentage_refers_to_the_time_between_two_polls() {
        let pressure = MemoryPressure { of: None, kind: Kind::Some, above: 20.0 };
        let mut bench = Bench::default();
        assert!(matches!(pressure.evaluate("t", bench.view()), Outcome::Unreadable(_)));
        let mut seen = Vec::new();
        // Stalled microseconds since boot, one poll a second: 0, 19 %, 21 %, and a total that went backwards.
        for total in [5_000_000, 5_000_000, 5_190_000, 5_400_000, 10, 20] {
            bench.readings.stalls.insert(Scope::Cgroup, Err("cgroup v1".into()));
            bench.readings.stalls.insert(Scope::Host, Ok(Stalls { some: total, full: 0 }));
            seen.push(matches!(pressure.evaluate("t", bench.view()), Outcome::Holds(_)));
            bench.observe(|view, marks| pressure.observe("t", view, marks));
            bench.now_ms += 1000;
        }
        assert_eq!(seen, [false, false, false, true, false, false]);
    }
}
