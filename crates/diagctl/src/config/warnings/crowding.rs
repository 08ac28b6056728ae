//! Rules that are valid by themselves and are never granted because of the rest of the configuration.

use super::Warning;
use crate::config::{Config, Mode, Rule};
use crate::rules::decide::Costs;
use crate::rules::memory::Metric;
use crate::rules::trigger::Trigger;
use crate::units::{Amount, duration, ms, size};
use diagctl_store::report_kind::Producer;

const HOUR_MS: u64 = 3_600_000;

impl Config {
    fn units(&self, rule: &Rule) -> u32 {
        rule.reports.iter().map(|name| self.cost_of(name)).sum()
    }

    // The rules that capture by the clock, whatever happens, with the time between two captures. Dry runs spend nothing.
    fn regular(&self) -> impl Iterator<Item = (&Rule, u64)> {
        let enforced = self.rules.iter().filter(|rule| rule.mode == Mode::Enforce && rule.sample >= 100.0);
        enforced.filter_map(|rule| {
            let every = every(&rule.trigger)?.max(ms(rule.limits.cooldown)).max(self.poll_ms());
            Some((rule, every))
        })
    }

    /// Finds a rule for which the timers of other rules leave no room in a budget.
    pub(super) fn crowded_out(&self, rule: &Rule) -> Option<Warning> {
        // Budgets do not apply to requests. A capture that fits into no budget at all is another warning.
        let units = self.units(rule);
        if matches!(rule.trigger, Trigger::OnDemand(_)) {
            return None;
        }
        let budgets =
            [("budget_hour", self.limits.budget_hour, HOUR_MS), ("budget_day", self.limits.budget_day, 24 * HOUR_MS)];
        budgets.into_iter().filter(|(_, budget, _)| units <= *budget).find_map(|(name, budget, window)| {
            let others = self.regular().filter(|(other, _)| other.name != rule.name);
            let spends =
                others.map(|(other, every)| (other, captures(other, every, window) * u64::from(self.units(other))));
            let spends: Vec<(&Rule, u64)> = spends.filter(|(_, spent)| *spent > 0).collect();
            let spent: u64 = spends.iter().map(|(_, spent)| spent).sum();
            (spent + u64::from(units) > budget.into()).then(|| {
                let names = spends.iter().map(|(other, _)| &*other.name).collect::<Vec<_>>().join(", ");
                let units = if units == 1 { "1 unit".to_owned() } else { format!("{units} units") };
                let of = format!("limits.{name} = {budget}");
                let message =
                    format!("a capture costs {units}, but the timers of other rules ({names}) use {spent} of {of}");
                ("reports".into(), message, "the rule is crowded out; raise the budget, or let the timers capture less")
            })
        })
    }

    /// Finds a rule whose cooldown the captures of a timer start anew for ever.
    pub(super) fn always_covered(&self, rule: &Rule) -> Option<Warning> {
        let cooldown = ms(rule.limits.cooldown);
        let contains = |other: &Rule| rule.reports.iter().all(|name| other.reports.contains(name));
        let (other, every) = self.regular().find(|(other, every)| {
            other.name != rule.name
                && *every <= cooldown
                && contains(other)
                && (other.matching == rule.matching || other.matching == Default::default())
        })?;
        let message = format!(
            "rule {} captures the same reports every {}, which starts the cooldown of {} anew",
            other.name,
            duration(every),
            duration(cooldown)
        );
        Some((
            "limits.cooldown".into(),
            message,
            "the rule can never fire; make the cooldown shorter, or remove the rule",
        ))
    }

    /// Finds a rule that only holds for processes that are too large for a snapshot.
    pub(super) fn too_large(&self, rule: &Rule) -> Option<Warning> {
        let most = self.guards.max_rss.filter(|most| *most > 0)?;
        let snapshot = rule.reports.iter().find(|name| self.producer(name) == Producer::Snapshot)?;
        let least = match &rule.trigger {
            Trigger::MemoryUsage(usage) if usage.metric == Metric::Rss => match usage.above.first()? {
                Amount::Bytes(bytes) => *bytes,
                Amount::Percent(_) => return None,
            },
            Trigger::MemoryGrowth(growth) if growth.metric == Metric::Rss => growth.min,
            Trigger::HighWater(high_water) if high_water.metric == Metric::Rss => high_water.floor,
            _ => return None,
        };
        let a = if &**snapshot == "heap_dump" { "a heap dump".to_owned() } else { snapshot.to_string() };
        let message =
            format!("the rule holds from {} on, but guards.max_rss = {} refuses {a}", size(least), size(most));
        (least >= most)
            .then(|| ("reports".into(), message, "the rule can never fire; raise max_rss, or lower the threshold"))
    }
}

// The captures of a timer in a window.
fn captures(rule: &Rule, every: u64, window: u64) -> u64 {
    let most = rule.limits.max_count.map(|most| u64::from(most) * (window / ms(rule.limits.window).max(1)).max(1));
    (window / every.max(1)).min(most.unwrap_or(u64::MAX))
}

// The time between two captures of a trigger that a timer alone can fire.
fn every(trigger: &Trigger) -> Option<u64> {
    match trigger {
        Trigger::Timer(timer) => Some(ms(timer.every)),
        Trigger::Any(parts) => parts.iter().filter_map(every).min(),
        _ => None,
    }
}
