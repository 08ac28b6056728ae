//! `memory_projection`: if the cgroup's working set grew again by as much as since the last poll, it would pass the limit less
//! `margin`. For a capture that must be taken before it is too late.

use super::{Condition, Facts, Outcome, View, figures};
use crate::rules::memory::{Metric, Wanted};
use crate::section::Section;
use crate::state::samples::{Mark, Marks};
use crate::units::{self, Amount};
use serde::{Deserialize, Serialize};

/// The keys of `memory_projection`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryProjection {
    /// The distance from the limit at which the trigger holds.
    pub margin: Amount,
}

impl Condition for MemoryProjection {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let margin = keys.amount("margin").unwrap_or(Amount::Bytes(0));
        keys.finish();
        Some(Self { margin })
    }

    /// Holds when the projected working set is within `margin` of the limit.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let value = match view.readings.memory.get(Metric::WorkingSet) {
            Ok(value) => value,
            Err(why) => return Outcome::Unreadable(why),
        };
        let limit = view.readings.memory.whole(Metric::WorkingSet);
        if limit == 0 {
            return Outcome::Unreadable("neither a memory limit nor the host's memory could be read".into());
        }
        let increase = view.marks.get(path).map_or(0, |last| value.saturating_sub(figures::whole(last.value)));
        let projected = value.saturating_add(increase);
        let threshold = limit.saturating_sub(self.margin.of(limit));
        let mut facts = Facts::default();
        facts.observed.insert("cgroup_working_set".into(), value.into());
        facts.observed.insert("increase".into(), increase.into());
        facts.observed.insert("threshold".into(), threshold.into());
        let holds = projected > threshold;
        facts.reason = format!(
            "working set {} and its last increase {} {} {} (limit {} less {})",
            units::size(value),
            units::size(increase),
            if holds { "pass" } else { "stay below" },
            units::size(threshold),
            units::size(limit),
            self.margin
        );
        if holds { Outcome::Holds(facts) } else { Outcome::Waits(facts, None) }
    }

    fn is_about_the_process(&self) -> bool {
        false
    }

    fn want(&self, wanted: &mut Wanted) {
        wanted.metrics.push(Metric::WorkingSet);
        wanted.whole = true;
    }

    /// Remembers the working set for the next poll.
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are exact in a double")]
    fn observe(&self, path: &str, view: View<'_>, marks: &mut Marks) {
        if let Ok(value) = view.readings.memory.get(Metric::WorkingSet) {
            marks.insert(path.to_owned(), Mark { value: value as f64, at: view.now_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::{Bench, MIB};

    #[test]
    fn the_projection_fires_one_step_before_the_limit() {
        let projection = MemoryProjection { margin: Amount::Percent(10.0) };
        let mut bench = Bench::default();
        bench.readings.memory.limit = Some(1000 * MIB);
        let seen: Vec<bool> = [500, 600, 700, 750, 840, 800]
            .into_iter()
            .map(|figure| {
                bench.readings.memory.set(Metric::WorkingSet, Ok(figure * MIB));
                let holds = matches!(projection.evaluate("t", bench.view()), Outcome::Holds(_));
                bench.observe(|view, marks| projection.observe("t", view, marks));
                holds
            })
            .collect();
        // 840 + 90 is above 900; a shrinking working set projects no growth.
        assert_eq!(seen, [false, false, false, false, true, false]);
    }
}
