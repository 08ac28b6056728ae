//! `high_water`: a new maximum, at least `step` above the last one that fired. The mark is forgotten after `reset_after`, so
//! that every period can have its own maximum.

use super::{Condition, Facts, Outcome, View, figures};
use crate::rules::memory::{Metric, Wanted};
use crate::section::Section;
use crate::state::schedule::{HighWater as Mark, RuleState};
use crate::units;
use serde::{Deserialize, Serialize};

/// The keys of `high_water`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HighWater {
    /// The figure.
    pub metric: Metric,
    /// Values below this are ignored.
    pub floor: u64,
    /// The smallest difference between a new maximum and the last one.
    pub step: u64,
    /// Time after which a mark is forgotten, milliseconds; 0 means never.
    pub reset_after_ms: u64,
}

impl Condition for HighWater {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let metric = figures::any_metric(keys);
        let floor = keys.size("floor").unwrap_or(0);
        let step = keys.size("step");
        let reset_after_ms = units::ms(keys.duration("reset_after").unwrap_or_default());
        keys.finish();
        if !keys.has("step") {
            keys.problem("step", "missing", "set by how much a new maximum must exceed the last: step = \"100MiB\"");
        }
        if step == Some(0) {
            keys.problem("step", "\"0\" would fire at every byte", "use for example step = \"100MiB\"");
        }
        Some(Self { metric, floor, step: step?, reset_after_ms })
    }

    /// Holds at a new maximum.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let value = match view.readings.memory.get(self.metric) {
            Ok(value) => value,
            Err(why) => return Outcome::Unreadable(why),
        };
        let mark = self.mark(path, view);
        let threshold = mark.map_or(self.floor, |mark| self.floor.max(mark.saturating_add(self.step)));
        let name = self.metric.name();
        let mut facts = Facts::default();
        facts.observed.insert(name.into(), value.into());
        facts.observed.insert("threshold".into(), threshold.into());
        let last = mark.map_or_else(|| "no mark yet".to_owned(), |mark| format!("last mark {}", units::size(mark)));
        let holds = value >= threshold && value > 0;
        let relation = if holds { "a new maximum, from" } else { "below" };
        facts.reason = format!("{name} {} is {relation} {} ({last})", units::size(value), units::size(threshold));
        if holds { Outcome::Holds(facts) } else { Outcome::Waits(facts, None) }
    }

    fn is_about_the_process(&self) -> bool {
        self.metric.is_of_process()
    }

    fn want(&self, wanted: &mut Wanted) {
        wanted.metrics.push(self.metric);
    }

    /// Sets the mark to the present figure.
    fn fired(&self, path: &str, view: View<'_>, _seed: u64, state: &mut RuleState) {
        if let (Ok(value), Outcome::Holds(_)) = (view.readings.memory.get(self.metric), self.evaluate(path, view)) {
            let mark = Mark { bytes: value, at: view.now_ms };
            state.high_water.insert(figures::subject_key(path, self.metric, view), mark);
        }
    }
}

impl HighWater {
    fn mark(&self, path: &str, view: View<'_>) -> Option<u64> {
        let mark = view.rule.high_water.get(&figures::subject_key(path, self.metric, view))?;
        let forgotten = self.reset_after_ms > 0 && view.now_ms.saturating_sub(mark.at) >= self.reset_after_ms;
        (!forgotten).then_some(mark.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::{Bench, MIB};

    #[test]
    fn each_new_maximum_fires_once_and_the_mark_expires() {
        let high = HighWater { metric: Metric::Rss, floor: 300 * MIB, step: 100 * MIB, reset_after_ms: 10_000 };
        let mut bench = Bench::default();
        let mut fired = Vec::new();
        for (pause, figure) in [(0, 299), (1, 300), (1, 399), (1, 400), (1, 900), (1, 950), (9998, 950), (1, 950)] {
            bench.now_ms += pause;
            bench.readings.memory.set(Metric::Rss, Ok(figure * MIB));
            let holds = matches!(high.evaluate("t", bench.view()), Outcome::Holds(_));
            if holds {
                bench.fired(|view, state| high.fired("t", view, 0, state));
            }
            fired.push(holds);
        }
        assert_eq!(fired, [false, true, false, true, true, false, false, true]);
    }
}
