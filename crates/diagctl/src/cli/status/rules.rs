//! The rules and budgets in `diagctl status`.

use serde::Serialize;

use crate::cli::Context;
use crate::config::{Config, Mode, Rule};
use crate::rules::limit::{self, Refusal};
use crate::state::samples::{Sample, Samples};
use crate::state::schedule::{RuleState, State};
use crate::units::{duration, ms};

#[derive(Debug, Serialize)]
pub(super) struct RuleStatus {
    pub(super) name: String,
    pub(super) trigger: &'static str,
    pub(super) dry_run: bool,
    /// The strongest state over the polling processes: `idle`, `skipped` (the trigger cannot be read), `pending`, `cooldown`,
    /// `throttled` or `guarded`.
    pub(super) state: String,
    /// The guard, or how long the condition has held and must hold.
    pub(super) detail: Option<String>,
    pub(super) left_ms: Option<u64>,
    pub(super) last_fired_ms: Option<u64>,
    pub(super) fired_in_window: usize,
    pub(super) max_count: Option<u32>,
    pub(super) window_ms: u64,
    pub(super) due_in_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Budget {
    pub(super) name: &'static str,
    pub(super) spent: u32,
    pub(super) of: u32,
}

pub(super) fn rules(cx: &Context, state: &State, samples: &Samples, now_ms: u64) -> Vec<RuleStatus> {
    let polling: Vec<&Sample> =
        samples.processes.values().filter(|sample| sample.is_fresh(now_ms, cx.config().poll_ms())).collect();
    let status = |rule: &Rule| rule_status(rule, state.rules.get(&*rule.name), &polling, now_ms);
    cx.config().rules.iter().map(status).collect()
}

pub(super) fn rule_status(rule: &Rule, marks: Option<&RuleState>, polling: &[&Sample], now_ms: u64) -> RuleStatus {
    let fresh = RuleState::default();
    let marks = marks.unwrap_or(&fresh);
    let (state, detail, left_ms) = match limit::check_rule(&rule.limits, marks, now_ms) {
        Some(Refusal::Cooldown { left_ms, .. }) => ("cooldown".into(), None, Some(left_ms)),
        Some(Refusal::Throttled { left_ms, .. }) => ("throttled".into(), None, Some(left_ms)),
        None => told(rule, polling),
    };
    let window_ms = ms(rule.limits.window);
    RuleStatus {
        name: rule.name.to_string(),
        trigger: rule.trigger.name(),
        dry_run: rule.mode == Mode::DryRun,
        state,
        detail,
        left_ms,
        last_fired_ms: marks.fires.last().map(|at| now_ms.saturating_sub(*at)),
        fired_in_window: marks.fires.iter().filter(|at| now_ms.saturating_sub(**at) < window_ms).count(),
        max_count: rule.limits.max_count,
        window_ms,
        due_in_ms: marks.due.values().min().map(|due| due.saturating_sub(now_ms)),
    }
}

// Returns the most informative refusal of the polling processes: a guard before a budget, and a budget before a condition that
// does not hold yet.
pub(super) fn told(rule: &Rule, polling: &[&Sample]) -> (String, Option<String>, Option<u64>) {
    let refusals = || polling.iter().filter_map(|sample| Some((*sample, sample.refusals.get(&*rule.name)?)));
    for verdict in ["guarded", "throttled", "cooldown", "pending", "skipped"] {
        let Some((sample, refused)) = refusals().find(|(_, refused)| refused.verdict == verdict) else { continue };
        let detail = match (&refused.guard, sample.holding.get(&*rule.name)) {
            (Some(guard), _) => Some(format!("by {guard}")),
            _ if verdict == "skipped" => Some(refused.reason.trim_start_matches("skipped: ").to_owned()),
            (None, Some(held)) if verdict == "pending" => {
                let held_ms = held.last.saturating_sub(held.since);
                Some(format!("{} of {}", crate::cli::times::age(0, held_ms), duration(ms(rule.hold_for))))
            }
            _ => None,
        };
        return (verdict.to_owned(), detail, None);
    }
    ("idle".into(), None, None)
}

pub(super) fn budgets(config: &Config, state: &State, now_ms: u64) -> Vec<Budget> {
    let spent = |window_ms: u64| {
        let recent = state.spent.iter().filter(|spent| now_ms.saturating_sub(spent.at) < window_ms);
        recent.map(|spent| spent.units).sum()
    };
    vec![
        Budget { name: "hour", spent: spent(3_600_000), of: config.limits.budget_hour },
        Budget { name: "day", spent: spent(86_400_000), of: config.limits.budget_day },
    ]
}
