//! `memory_growth`: a figure of the process is above `min` and at least `diff` above its baseline.

use super::{Condition, Facts, Outcome, View, figures};
use crate::rules::memory::{Metric, Wanted};
use crate::section::Section;
use crate::state::samples::{Mark, Marks};
use crate::units::{self, Amount};
use serde::{Deserialize, Serialize};

/// The weight of the newest sample in the `average` baseline: about the last ten polls.
const AVERAGE_WEIGHT: f64 = 0.1;

/// The reference for growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Baseline {
    /// The figure at the end of the warm-up.
    Boot,
    /// A moving average over about ten polls.
    Average,
    /// The figure of the parent process: with Puma, the primary from which the workers were forked.
    Primary,
}

/// The keys of `memory_growth`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryGrowth {
    /// The figure of the process.
    pub metric: Metric,
    /// Values below this are not growth.
    pub min: u64,
    /// The increase over the baseline, in bytes or as a percentage of the baseline.
    pub diff: Amount,
    /// The baseline.
    pub baseline: Baseline,
    /// Time after its first poll at which a process counts as warmed up, milliseconds.
    pub warmup_ms: u64,
}

impl Condition for MemoryGrowth {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let metric = figures::process_metric(keys);
        let min = keys.size("min").unwrap_or(0);
        let diff = keys.required_increase("diff", "say by how much: diff = \"30%\" or diff = \"200MiB\"");
        let baseline = keys.choice(
            "baseline",
            &[("boot", Baseline::Boot), ("average", Baseline::Average), ("primary", Baseline::Primary)],
        );
        let warmup_ms = units::ms(keys.duration("warmup").unwrap_or_default());
        keys.finish();
        Some(Self { metric, min, diff: diff?, baseline: baseline.unwrap_or(Baseline::Boot), warmup_ms })
    }

    /// Holds when the figure has grown.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let value = match view.readings.memory.get(self.metric) {
            Ok(value) => value,
            Err(why) => return Outcome::Unreadable(why),
        };
        let name = self.metric.name();
        let mut facts = Facts::default();
        facts.observed.insert(name.into(), value.into());
        let warm_in = (view.first_seen_ms + self.warmup_ms).saturating_sub(view.now_ms);
        if warm_in > 0 {
            facts.reason = format!("the process is warming up for another {}", units::duration(warm_in));
            return Outcome::Waits(facts, None);
        }
        let baseline = match self.baseline {
            Baseline::Primary => match view.readings.memory.get(Metric::ParentRss) {
                Ok(baseline) => baseline,
                Err(why) => return Outcome::Unreadable(format!("the parent's memory: {why}")),
            },
            Baseline::Boot | Baseline::Average => match view.marks.get(path) {
                Some(mark) => figures::whole(mark.value),
                None => {
                    facts.reason = format!("the baseline is {name} {} of this poll", units::size(value));
                    return Outcome::Waits(facts, None);
                }
            },
        };
        let threshold = self.min.max(baseline.saturating_add(self.diff.of(baseline)));
        facts.observed.insert("baseline".into(), baseline.into());
        facts.observed.insert("threshold".into(), threshold.into());
        let against = match self.baseline {
            Baseline::Boot => "its size after boot",
            Baseline::Average => "its average",
            Baseline::Primary => "its parent",
        };
        let holds = value >= threshold;
        facts.reason = format!(
            "{name} {} is {} {} ({} over {against} {}, at least {})",
            units::size(value),
            if holds { "above" } else { "below" },
            units::size(threshold),
            self.diff,
            units::size(baseline),
            units::size(self.min)
        );
        if holds { Outcome::Holds(facts) } else { Outcome::Waits(facts, None) }
    }

    fn is_about_the_process(&self) -> bool {
        self.metric.is_of_process()
    }

    fn want(&self, wanted: &mut Wanted) {
        wanted.metrics.push(self.metric);
        wanted.metrics.extend((self.baseline == Baseline::Primary).then_some(Metric::ParentRss));
    }

    /// Updates the baseline with this poll's figure.
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are exact in a double")]
    fn observe(&self, path: &str, view: View<'_>, marks: &mut Marks) {
        let Ok(value) = view.readings.memory.get(self.metric) else { return };
        if view.now_ms < view.first_seen_ms + self.warmup_ms {
            return;
        }
        let value = value as f64;
        match self.baseline {
            Baseline::Primary => {}
            Baseline::Boot => {
                marks.entry(path.to_owned()).or_insert(Mark { value, at: view.now_ms });
            }
            Baseline::Average => {
                let mark = marks.entry(path.to_owned()).or_insert(Mark { value, at: view.now_ms });
                mark.value += (value - mark.value) * AVERAGE_WEIGHT;
                mark.at = view.now_ms;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::{Bench, MIB};

    fn growth(baseline: Baseline) -> MemoryGrowth {
        MemoryGrowth { metric: Metric::Rss, min: 500 * MIB, diff: Amount::Percent(30.0), baseline, warmup_ms: 2000 }
    }

    fn feed(growth: &MemoryGrowth, figures: &[u64]) -> Vec<bool> {
        let mut bench = Bench::default();
        figures
            .iter()
            .map(|figure| {
                bench.readings.memory.set(Metric::Rss, Ok(figure * MIB));
                bench.readings.memory.set(Metric::ParentRss, Ok(400 * MIB));
                let holds = matches!(growth.evaluate("t", bench.view()), Outcome::Holds(_));
                bench.observe(|view, marks| growth.observe("t", view, marks));
                bench.now_ms += 1000;
                holds
            })
            .collect()
    }

    #[test]
    fn growth_is_measured_from_the_size_after_the_warm_up() {
        // Two warm-up polls are ignored; the third sets the baseline of 450.
        assert_eq!(
            feed(&growth(Baseline::Boot), &[900, 900, 450, 500, 584, 586]),
            [false, false, false, false, false, true]
        );
    }

    #[test]
    fn growth_below_min_does_not_fire() {
        assert_eq!(feed(&growth(Baseline::Boot), &[100, 100, 100, 499, 500]), [false, false, false, false, true]);
    }

    #[test]
    fn the_average_follows_slow_growth_and_detects_a_jump() {
        let slow: Vec<u64> = (0..60).map(|i| 600 + i * 3).collect();
        assert!(!feed(&growth(Baseline::Average), &slow).contains(&true));
        assert_eq!(feed(&growth(Baseline::Average), &[600, 600, 600, 610, 900]).last(), Some(&true));
    }

    #[test]
    fn the_primary_is_the_parent_process() {
        assert_eq!(feed(&growth(Baseline::Primary), &[500, 500, 519, 521]), [false, false, false, true]);
    }
}
