//! `memory_usage`: a process, its cgroup or the host is above a level. Each level of a list fires once, until the figure has
//! been below `rearm_below`.

use super::{Condition, Facts, Outcome, View, figures};
use crate::rules::memory::{Metric, Wanted};
use crate::section::Section;
use crate::state::schedule::RuleState;
use crate::units::{self, Amount};
use serde::{Deserialize, Serialize};

/// The percentage of itself below which a level of a list is re-armed, unless the rule sets `rearm_below`.
const REARM_PERCENT: u64 = 90;

/// The keys of `memory_usage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// The figure.
    pub metric: Metric,
    /// The levels, ascending. Percentages are of the memory limit, or of the host's memory if there is no limit.
    pub above: Vec<Amount>,
    /// The value below which levels are re-armed.
    pub rearm_below: Option<Amount>,
}

impl Condition for MemoryUsage {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let metric = figures::any_metric(keys);
        let above = keys.amounts("above");
        let rearm_below = keys.amount("rearm_below");
        keys.finish();
        if !keys.has("above") {
            keys.problem("above", "missing", "set the level: above = \"1.5GiB\" or above = \"80%\"");
        }
        let above = above?;
        if above.is_empty() {
            keys.problem("above", "the list of levels is empty", "add at least one level");
            return None;
        }
        if !above.windows(2).all(|pair| comparable_below(pair[0], pair[1])) {
            keys.problem(
                "above",
                "levels must ascend, and be all sizes or all shares",
                "use for example [\"70%\", \"80%\", \"90%\"]",
            );
        }
        if let Some(rearm) = rearm_below
            && !comparable_below(rearm, above[0])
        {
            keys.problem(
                "rearm_below",
                format!("{rearm} is not below the level {}", above[0]),
                "use a lower value, in the same unit as `above`",
            );
        }
        Some(Self { metric, above, rearm_below })
    }

    /// Holds when the figure is above an armed level.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let value = match view.readings.memory.get(self.metric) {
            Ok(value) => value,
            Err(why) => return Outcome::Unreadable(why),
        };
        if self.has_shares() && view.readings.memory.whole(self.metric) == 0 {
            return Outcome::Unreadable("neither a memory limit nor the host's memory could be read".into());
        }
        let name = self.metric.name();
        let mut facts = Facts::default();
        facts.observed.insert(name.into(), value.into());
        let crossed = self.levels(view).into_iter().enumerate().rfind(|(_, level)| value > *level);
        let Some((index, level)) = crossed else {
            let (amount, level) = (self.above[0], self.levels(view)[0]);
            facts.reason = format!("{name} {} is not above {}", units::size(value), shown(amount, level));
            return Outcome::Waits(facts, None);
        };
        let level_text = shown(self.above[index], level);
        if self.is_disarmed(path, view, index) {
            facts.reason = format!("{name} {} is above {level_text}, which has fired already", units::size(value));
            return Outcome::Waits(facts, None);
        }
        facts.observed.insert("threshold".into(), level.into());
        facts.reason = format!("{name} {} is above {level_text}", units::size(value));
        Outcome::Holds(facts)
    }

    fn is_about_the_process(&self) -> bool {
        self.metric.is_of_process()
    }

    fn want(&self, wanted: &mut Wanted) {
        wanted.metrics.push(self.metric);
        wanted.whole |= self.has_shares();
    }

    /// Re-arms the levels that the figure has dropped below.
    fn prepare(&self, path: &str, view: View<'_>, _seed: u64, marks: &mut RuleState) {
        let key = figures::subject_key(path, self.metric, view);
        let Ok(value) = view.readings.memory.get(self.metric) else { return };
        let Some(disarmed) = marks.disarmed.get_mut(&key) else { return };
        let levels = self.levels(view);
        let rearm = self.rearm_below.map(|amount| amount.of(view.readings.memory.whole(self.metric)));
        disarmed.retain(|index| {
            let Some(level) = levels.get(*index) else { return false };
            value >= rearm.unwrap_or(level / 100 * REARM_PERCENT)
        });
        if disarmed.is_empty() {
            marks.disarmed.remove(&key);
        }
    }

    /// Disarms every level that the figure is above.
    fn fired(&self, path: &str, view: View<'_>, _seed: u64, marks: &mut RuleState) {
        let Ok(value) = view.readings.memory.get(self.metric) else { return };
        if !self.fires_once() {
            return;
        }
        let crossed: Vec<usize> =
            self.levels(view).iter().enumerate().filter(|(_, level)| value > **level).map(|(i, _)| i).collect();
        if !crossed.is_empty() {
            marks.disarmed.insert(figures::subject_key(path, self.metric, view), crossed);
        }
    }
}

impl MemoryUsage {
    /// Returns true if a level is a percentage, for which the whole must be known.
    pub fn has_shares(&self) -> bool {
        self.above.iter().chain(&self.rearm_below).any(|amount| matches!(amount, Amount::Percent(_)))
    }




    // A single level without `rearm_below` holds at every poll; the rule's limits decide how often it leads to a capture.
    fn fires_once(&self) -> bool {
        self.above.len() > 1 || self.rearm_below.is_some()
    }

    fn levels(&self, view: View<'_>) -> Vec<u64> {
        let whole = view.readings.memory.whole(self.metric);
        self.above.iter().map(|amount| amount.of(whole)).collect()
    }

    fn is_disarmed(&self, path: &str, view: View<'_>, index: usize) -> bool {
        view.rule
            .disarmed
            .get(&figures::subject_key(path, self.metric, view))
            .is_some_and(|levels| levels.contains(&index))
    }
}

fn comparable_below(low: Amount, high: Amount) -> bool {
    match (low, high) {
        (Amount::Bytes(low), Amount::Bytes(high)) => low < high,
        (Amount::Percent(low), Amount::Percent(high)) => low < high,
        _ => false,
    }
}

fn shown(amount: Amount, level: u64) -> String {
    match amount {
        Amount::Bytes(_) => units::size(level),
        Amount::Percent(percent) => format!("{percent}% ({})", units::size(level)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::Bench;

    const GIB: u64 = 1 << 30;

    // Feeds one figure after the other and fires whenever the trigger holds. Returns the positions at which it fired.
    fn fires(usage: &MemoryUsage, figures: &[u64]) -> Vec<usize> {
        let mut bench = Bench::default();
        bench.readings.memory.limit = Some(GIB);
        let mut fired = Vec::new();
        for (i, figure) in figures.iter().enumerate() {
            bench.readings.memory.set(usage.metric, Ok(figure * GIB / 10));
            bench.prepare(|view, state| usage.prepare("t", view, 0, state));
            if matches!(usage.evaluate("t", bench.view()), Outcome::Holds(_)) {
                fired.push(i);
                bench.fired(|view, state| usage.fired("t", view, 0, state));
            }
        }
        fired
    }

    fn percent(levels: &[f64], rearm_below: Option<f64>) -> MemoryUsage {
        MemoryUsage {
            metric: Metric::Rss,
            above: levels.iter().map(|p| Amount::Percent(*p)).collect(),
            rearm_below: rearm_below.map(Amount::Percent),
        }
    }

    #[test]
    fn a_single_level_fires_while_it_is_exceeded() {
        assert_eq!(fires(&percent(&[50.0], None), &[4, 5, 6, 6, 4, 6]), [2, 3, 5]);
    }

    #[test]
    fn each_of_several_levels_fires_once_until_usage_drops_below_it() {
        let levels = percent(&[50.0, 70.0, 90.0], None);
        // 6: first level; 8: second; 10: third; 8 and 6 again: nothing new; 4 re-arms; 6 fires the first again.
        assert_eq!(fires(&levels, &[6, 6, 8, 8, 10, 8, 6, 4, 6]), [0, 2, 4, 8]);
    }

    #[test]
    fn crossing_two_levels_at_once_fires_once() {
        assert_eq!(fires(&percent(&[50.0, 70.0], None), &[9, 9, 9]), [0]);
    }

    #[test]
    fn rearm_below_silences_a_level_until_usage_drops_far_enough() {
        assert_eq!(fires(&percent(&[50.0], Some(30.0)), &[6, 4, 6, 4, 2, 6]), [0, 5]);
    }

    #[test]
    fn the_reason_names_figure_and_threshold_or_the_unreadable_figure() {
        let usage = percent(&[50.0], None);
        let mut bench = Bench::default();
        bench.readings.memory.limit = Some(2 * GIB);
        bench.readings.memory.set(Metric::Rss, Ok(GIB * 3 / 2));
        let Outcome::Holds(facts) = usage.evaluate("t", bench.view()) else { panic!("it holds") };
        assert_eq!(facts.reason, "rss 1.50 GiB is above 50% (1.00 GiB)");
        assert_eq!(facts.observed["rss"], (GIB * 3 / 2).into());
        assert!(matches!(usage.evaluate("t", Bench::default().view()), Outcome::Unreadable(_)));
    }
}
