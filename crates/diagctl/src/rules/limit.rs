//! Rate limits: cooldown and count of a rule, budgets of the store. Pure functions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::schedule::{RuleState, Spent};
use crate::units::{duration, ms};

/// The number of processes of which a rule remembers the last capture.
const MOST_PROCESSES: usize = 1000;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The keys of `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Cost units in any 60 minutes.
    pub budget_hour: u32,
    /// Cost units in any 24 hours.
    pub budget_day: u32,
}

/// The keys of `limits` in a rule. No key means no limit; the store's budgets apply in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsOfRule {
    /// The minimum time between two captures.
    pub cooldown: Duration,
    /// The maximum number of captures in any `window`.
    pub max_count: Option<u32>,
    /// The sliding window of `max_count`.
    pub window: Duration,
    /// The minimum time between two captures of one process.
    pub per_process: Option<Duration>,
}

/// The reason why a rule may not fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The rule fired too recently.
    Cooldown {
        /// The explanation, one sentence.
        reason: String,
        /// Milliseconds until the rule may fire.
        left_ms: u64,
    },
    /// The rule, or all rules together, fired too often.
    Throttled {
        /// The explanation, one sentence.
        reason: String,
        /// Milliseconds until the rule may fire.
        left_ms: u64,
    },
}

/// Checks a rule's own limits.
pub fn check_rule(limits: &LimitsOfRule, rule: &RuleState, now_ms: u64) -> Option<Refusal> {
    let cooldown = ms(limits.cooldown);
    if let Some(last) = rule.fires.last().max(rule.covered.as_ref()) {
        let since = now_ms.saturating_sub(*last);
        if since < cooldown {
            let left_ms = cooldown - since;
            return Some(Refusal::Cooldown {
                reason: format!(
                    "cooldown {}: the last capture was {} ago, {} left",
                    duration(cooldown),
                    duration(since),
                    duration(left_ms)
                ),
                left_ms,
            });
        }
    }
    let max = limits.max_count?;
    let window = ms(limits.window);
    let recent: Vec<u64> = rule.fires.iter().copied().filter(|at| now_ms.saturating_sub(*at) < window).collect();
    let free_at = recent.len().checked_sub(max as usize).and_then(|i| recent.get(i))?;
    let left_ms = (free_at + window).saturating_sub(now_ms);
    Some(Refusal::Throttled {
        reason: format!("{} of {max} captures in {}, {} left", recent.len(), duration(window), duration(left_ms)),
        left_ms,
    })
}

/// Checks the rule's own limits. `subject` identifies the process.
pub fn check_own(
    limits: &LimitsOfRule,
    rule: &RuleState,
    subject: impl Fn() -> String,
    now_ms: u64,
) -> Option<Refusal> {
    check_rule(limits, rule, now_ms).or_else(|| check_process(limits, rule, subject, now_ms))
}

/// Checks the limit of one process. `subject` identifies it.
pub fn check_process(
    limits: &LimitsOfRule,
    rule: &RuleState,
    subject: impl Fn() -> String,
    now_ms: u64,
) -> Option<Refusal> {
    let least = ms(limits.per_process?);
    let since = now_ms.saturating_sub(*rule.captured.get(&subject())?);
    let left_ms = least.checked_sub(since).filter(|left| *left > 0)?;
    let reason = format!(
        "per_process {}: the last capture of this process was {} ago, {} left",
        duration(least),
        duration(since),
        duration(left_ms)
    );
    Some(Refusal::Cooldown { reason, left_ms })
}

/// Checks the store's budgets for a capture that costs this many units.
pub fn check_budgets(limits: &Limits, spent: &[Spent], units: u32, now_ms: u64) -> Option<Refusal> {
    let budgets = [("budget_hour", limits.budget_hour, HOUR_MS), ("budget_day", limits.budget_day, DAY_MS)];
    for (name, budget, window) in budgets {
        let recent: Vec<&Spent> = spent.iter().filter(|s| now_ms.saturating_sub(s.at) < window).collect();
        let used: u32 = recent.iter().map(|s| s.units).sum();
        if used.saturating_add(units) <= budget {
            continue;
        }
        // The capture fits once enough of the oldest spending has left the window.
        let mut over = used.saturating_add(units) - budget;
        let mut left_ms = window;
        for entry in recent {
            left_ms = (entry.at + window).saturating_sub(now_ms);
            over = over.saturating_sub(entry.units);
            if over == 0 {
                break;
            }
        }
        let reason = if units > budget {
            format!("the capture costs {units} units, more than all of {name} = {budget}")
        } else {
            format!("{name}: {used} of {budget} units are spent, the capture costs {units}, {} left", duration(left_ms))
        };
        return Some(Refusal::Throttled { reason, left_ms });
    }
    None
}

/// Charges a grant to a rule's own limits. `subject` identifies the process.
pub fn charge(limits: Option<&LimitsOfRule>, rule: &mut RuleState, subject: &str, now_ms: u64) {
    if let Some(least) = limits.and_then(|limits| limits.per_process).map(ms) {
        rule.captured.retain(|_, at| now_ms.saturating_sub(*at) < least);
        if rule.captured.len() < MOST_PROCESSES {
            rule.captured.insert(subject.to_owned(), now_ms);
        }
    }
    if let Some(limits) = limits {
        let keep = ms(limits.window).max(ms(limits.cooldown)).max(DAY_MS);
        rule.fires.retain(|at| now_ms.saturating_sub(*at) < keep);
    }
    rule.fires.push(now_ms);
    forget_needless(limits, rule);
}

/// Forgets firings that no limit counts: the cooldown needs only the last one, a count no more than its maximum.
pub fn forget_needless(limits: Option<&LimitsOfRule>, rule: &mut RuleState) {
    let most = limits.and_then(|l| l.max_count).unwrap_or(0).max(100) as usize;
    rule.fires.drain(..rule.fires.len().saturating_sub(most));
}

/// Charges a grant to the store's budgets.
pub fn spend(spent: &mut Vec<Spent>, units: u32, now_ms: u64) {
    spent.retain(|s| now_ms.saturating_sub(s.at) < DAY_MS);
    spent.push(Spent { at: now_ms, units });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits(cooldown: u64, max_count: Option<u32>, window: u64) -> LimitsOfRule {
        LimitsOfRule {
            cooldown: Duration::from_millis(cooldown),
            max_count,
            window: Duration::from_millis(window),
            per_process: None,
        }
    }

    fn word(refusal: Option<Refusal>) -> (&'static str, u64) {
        match refusal {
            None => ("free", 0),
            Some(Refusal::Cooldown { left_ms, .. }) => ("cooldown", left_ms),
            Some(Refusal::Throttled { left_ms, .. }) => ("throttled", left_ms),
        }
    }

    #[test]
    fn cooldown_and_sliding_window() {
        let table: [(_, &[u64], _, _); 9] = [
            (limits(0, None, 0), &[100], 100, ("free", 0)),
            (limits(50, None, 0), &[], 100, ("free", 0)),
            (limits(50, None, 0), &[100], 149, ("cooldown", 1)),
            (limits(50, None, 0), &[100], 150, ("free", 0)),
            (limits(0, Some(2), 1000), &[100, 200], 300, ("throttled", 800)),
            (limits(0, Some(2), 1000), &[100, 200], 1100, ("free", 0)),
            (limits(0, Some(2), 1000), &[100, 200, 300], 1100, ("throttled", 100)),
            (limits(500, Some(1), 1000), &[100], 300, ("cooldown", 300)),
            // A time line that went backwards never frees anything.
            (limits(50, None, 0), &[100], 20, ("cooldown", 50)),
        ];
        for (limits, fires, now, expected) in table {
            let rule = RuleState { fires: fires.to_vec(), ..RuleState::default() };
            assert_eq!(word(check_rule(&limits, &rule, now)), expected, "{fires:?} at {now}");
        }
    }

    #[test]
    fn budgets_free_as_units_leave_the_window() {
        let limits = Limits { budget_hour: 20, budget_day: 30 };
        let spent =
            |list: &[(u64, u32)]| list.iter().map(|(at, units)| Spent { at: *at, units: *units }).collect::<Vec<_>>();
        let table: [(&[_], _, _, _); 6] = [
            (&[], 20, 0, ("free", 0)),
            (&[], 21, 0, ("throttled", HOUR_MS)),
            (&[(0, 10), (1000, 10)], 1, 2000, ("throttled", HOUR_MS - 2000)),
            (&[(0, 10), (1000, 10)], 11, 2000, ("throttled", HOUR_MS - 1000)),
            (&[(0, 10), (1000, 10)], 10, HOUR_MS, ("free", 0)),
            (&[(0, 10), (1000, 10)], 11, 2 * HOUR_MS, ("throttled", DAY_MS - 2 * HOUR_MS)),
        ];
        for (list, units, now, expected) in table {
            assert_eq!(word(check_budgets(&limits, &spent(list), units, now)), expected, "{list:?} {units} {now}");
        }
    }

    #[test]
    fn the_kept_history_is_bounded_but_sufficient_for_every_limit() {
        let limits = limits(0, Some(300), 10 * DAY_MS);
        let mut rule = RuleState::default();
        for now in 0..1000 {
            charge(Some(&limits), &mut rule, "1@1", now);
        }
        assert_eq!(rule.fires.len(), 300);
        assert_eq!(word(check_rule(&limits, &rule, 1000)).0, "throttled");
    }

    #[test]
    fn each_process_has_its_own_time_between_captures() {
        let limits = LimitsOfRule { per_process: Some(Duration::from_millis(50)), ..limits(0, None, 0) };
        let mut rule = RuleState::default();
        charge(Some(&limits), &mut rule, "7@1", 100);
        for (subject, now, expected) in [
            ("7@1", 149, ("cooldown", 1)),
            ("7@1", 150, ("free", 0)),
            ("7@2", 101, ("free", 0)),
            ("8@1", 101, ("free", 0)),
        ] {
            assert_eq!(word(check_process(&limits, &rule, || subject.to_owned(), now)), expected, "{subject} at {now}");
        }
        charge(Some(&limits), &mut rule, "8@1", 150);
        assert_eq!(rule.captured.keys().collect::<Vec<_>>(), ["8@1"], "what no longer counts is forgotten");
        charge(Some(&LimitsOfRule::default()), &mut rule, "9@1", 150);
        assert_eq!(rule.captured.len(), 1);
    }
}
