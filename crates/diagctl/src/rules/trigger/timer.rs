//! `timer`: due at intervals. The due time is kept on disk, so it survives restarts. Missed ticks coalesce into one.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{Condition, Facts, Outcome, View};
use crate::section::Section;
use crate::state::schedule::RuleState;
use crate::units;

/// The keys of `timer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Time between two due times.
    pub every: Duration,
    /// The largest random delay that is added to each due time, so that nodes do not dump at the same moment.
    pub jitter: Duration,
    /// Time from the first poll under the rule to its first due time.
    pub initial_delay: Duration,
}

impl Condition for Timer {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let every = keys.duration("every");
        let jitter = keys.duration("jitter").unwrap_or_default();
        let initial_delay = keys.duration("initial_delay").unwrap_or_default();
        keys.finish();
        if !keys.has("every") {
            keys.problem("every", "missing", "set how often: every = \"2h\"");
        }
        let every = every?;
        if every.is_zero() {
            keys.problem("every", "\"0s\" would fire at every poll", "write at least 1s");
            return None;
        }
        if jitter > every {
            let (jitter, every) = (units::ms(jitter), units::ms(every));
            keys.problem(
                "jitter",
                format!("{} is longer than every = {}", units::duration(jitter), units::duration(every)),
                "make it shorter than `every`, so that no turn is skipped",
            );
        }
        Some(Self { every, jitter, initial_delay })
    }

    /// Holds once the due time has come.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let due = view.rule.due.get(path).copied().unwrap_or(u64::MAX);
        if view.now_ms >= due {
            let late = view.now_ms - due;
            let reason = if late < 1000 {
                "the timer is due".into()
            } else {
                format!("the timer has been due for {}", units::duration(late))
            };
            return Outcome::Holds(Facts { reason, ..Facts::default() });
        }
        let reason = format!("the timer is due in {}", units::duration(due - view.now_ms));
        Outcome::Waits(Facts { reason, ..Facts::default() }, Some(due))
    }

    fn is_about_the_process(&self) -> bool {
        false
    }

    fn is_sampled(&self) -> bool {
        false
    }

    /// Sets the first due time, and brings forward a due time that is too late for a shorter `every`.
    fn prepare(&self, path: &str, view: View<'_>, seed: u64, marks: &mut RuleState) {
        let now_ms = view.now_ms;
        let latest = now_ms + units::ms(self.initial_delay.max(self.every)) + units::ms(self.jitter);
        match marks.due.get_mut(path) {
            None => {
                let due = now_ms + units::ms(self.initial_delay) + self.spread(seed);
                marks.due.insert(path.to_owned(), due);
            }
            Some(due) if *due > latest => *due = now_ms + units::ms(self.every) + self.spread(seed),
            Some(_) => {}
        }
    }

    /// Moves a due timer to its next tick. Missed ticks are not made up for.
    fn fired(&self, path: &str, view: View<'_>, seed: u64, marks: &mut RuleState) {
        let now_ms = view.now_ms;
        if let Some(due) = marks.due.get_mut(path)
            && *due <= now_ms
        {
            let every = units::ms(self.every).max(1);
            let missed = (now_ms - *due) / every;
            // Without jitter the ticks stay on their grid; with jitter the grid starts at this tick.
            *due += (missed + 1) * every;
            if !self.jitter.is_zero() {
                *due = now_ms + every + self.spread(seed);
            }
        }
    }
}

impl Timer {
    fn spread(&self, seed: u64) -> u64 {
        match units::ms(self.jitter) {
            0 => 0,
            jitter => seed % (jitter + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::Bench;

    const SECOND: u64 = 1000;

    fn timer(every: u64, jitter: u64, initial_delay: u64) -> Timer {
        Timer {
            every: Duration::from_secs(every),
            jitter: Duration::from_secs(jitter),
            initial_delay: Duration::from_secs(initial_delay),
        }
    }

    fn prepare(timer: &Timer, seed: u64, marks: &mut RuleState) {
        timer.prepare("timer", Bench::default().view(), seed, marks);
    }

    fn fired(timer: &Timer, now_ms: u64, seed: u64, marks: &mut RuleState) {
        timer.fired("timer", Bench { now_ms, ..Bench::default() }.view(), seed, marks);
    }

    fn holds(timer: &Timer, marks: &RuleState, now_ms: u64) -> bool {
        let bench = Bench { now_ms, rule: marks.clone(), ..Bench::default() };
        matches!(timer.evaluate("timer", bench.view()), Outcome::Holds(_))
    }

    #[test]
    fn the_timer_starts_after_the_initial_delay_and_missed_turns_coalesce() {
        let timer = timer(60, 0, 10);
        let mut marks = RuleState::default();
        prepare(&timer, 7, &mut marks);
        assert!(!holds(&timer, &marks, 9 * SECOND));
        assert!(holds(&timer, &marks, 10 * SECOND));
        // Nobody polled for four ticks: one capture, and the next tick is on the grid again.
        fired(&timer, 275 * SECOND, 7, &mut marks);
        assert!(!holds(&timer, &marks, 309 * SECOND));
        assert!(holds(&timer, &marks, 310 * SECOND));
    }

    #[test]
    fn jitter_never_shortens_the_interval_and_is_bounded() {
        let timer = timer(60, 10, 0);
        for seed in [0, 1, 9_999, 10_000, 10_001, u64::MAX] {
            let mut marks = RuleState::default();
            prepare(&timer, seed, &mut marks);
            assert!(marks.due["timer"] <= 10 * SECOND);
            fired(&timer, 20 * SECOND, seed, &mut marks);
            let due = marks.due["timer"];
            assert!((80 * SECOND..=90 * SECOND).contains(&due), "{seed}: {due}");
        }
    }

    #[test]
    fn a_shorter_interval_takes_effect_before_the_old_due_time() {
        let mut marks = RuleState::default();
        prepare(&timer(7200, 0, 7200), 0, &mut marks);
        prepare(&timer(60, 0, 0), 0, &mut marks);
        assert_eq!(marks.due["timer"], 60 * SECOND);
    }
}
