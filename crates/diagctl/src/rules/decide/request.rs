//! The answer to a request of a person.

use std::collections::BTreeMap;

use super::{Answer, Inputs, Plan, Verdict, check_guards, refused_by};
use crate::rules::limit::{self, Refusal};
use crate::rules::rule::{Rule, routine_reports};
use crate::rules::{ON_DEMAND, RuleName};
use crate::state::schedule::State;
use crate::units::{duration, ms};
use diagctl_store::requests::Request;
use diagctl_store::staging::Snapshot;
use diagctl_store::{Process, ReportName};

// A request skips triggers, and limits and budgets unless it keeps to them, but never the guards. If there is a rule with
// `on_demand`, the request uses its reports, its snapshot mode and its `min_interval`.
pub(super) fn answer_request(input: Inputs<'_>, request: &Request, state: &State) -> (Answer, Option<Plan>) {
    let Inputs { settings, process, now, .. } = input;
    let rule = rule_of_request(settings.rules, process, request);
    let name = rule.map_or_else(RuleName::on_demand, |rule| rule.name.clone());
    let reason = asked(request);
    let answer = |verdict, reason: String, guard, wait_ms| Answer {
        rule: name.to_string(),
        guard,
        wait_ms,
        ..Answer::plain(verdict, reason)
    };
    let reports = match (request.reports.is_empty(), rule) {
        (true, Some(rule)) => rule.reports.clone(),
        (true, None) => routine_reports(),
        (false, _) => request.reports.clone(),
    };
    if let Some(on_demand) = rule.and_then(|rule| rule.trigger.on_demand())
        && let Some(last) = state.rules.get(&*name).and_then(|marks| marks.fires.last())
    {
        let (since, least) = (now.store_ms.saturating_sub(*last), ms(on_demand.min_interval));
        if since < least {
            let why = format!("{reason}; min_interval {}: {} left", duration(least), duration(least - since));
            return (answer(Verdict::Cooldown, why, None, Some(least - since)), None);
        }
    }
    if request.budgeted
        && let Some(refusal) = check_limits(input, rule, &reports, state)
    {
        let (verdict, why, left_ms) = refused_by(refusal);
        return (answer(verdict, format!("{reason}; {why}"), None, Some(left_ms)), None);
    }
    if let Some(refusal) = check_guards(input, &reports, &state.costs) {
        let why = format!("{reason}; {}", refusal.reason);
        return (answer(Verdict::Guarded, why, Some(refusal.guard), None), None);
    }
    let plan = Plan {
        rule: name.clone(),
        trigger: ON_DEMAND,
        reason: reason.clone(),
        observed: BTreeMap::new(),
        reports,
        snapshot: rule.map_or(Snapshot::Fork, |rule| rule.snapshot),
        request: Some(request.id.clone()),
        second_of: None,
    };
    (answer(Verdict::Granted, reason, None, None), Some(plan))
}

fn asked(request: &Request) -> String {
    format!("requested by {}: {}", request.by, request.reason)
}

/// Returns a reason without the words of the person who asked, which a list of requests has beside it; `None` if it is not about this
/// request.
pub fn without_asking<'r>(reason: &'r str, request: &Request) -> Option<&'r str> {
    reason.strip_prefix(&asked(request)).map(|rest| rest.trim_start_matches("; "))
}

fn check_limits(input: Inputs<'_>, rule: Option<&Rule>, reports: &[ReportName], state: &State) -> Option<Refusal> {
    let now_ms = input.now.store_ms;
    let units = reports.iter().map(|name| input.settings.costs.cost_of(name)).sum();
    let of_rule = rule.and_then(|rule| {
        let marks = state.rules.get(&*rule.name).cloned().unwrap_or_default();
        limit::check_own(&rule.limits, &marks, || input.process.id.key(), now_ms)
    });
    of_rule.or_else(|| limit::check_budgets(input.settings.limits, &state.spent, units, now_ms))
}

// Returns the rule whose reports, snapshot mode and `min_interval` a request has, if there is one.
fn rule_of_request<'r>(rules: &'r [Rule], process: &Process, request: &Request) -> Option<&'r Rule> {
    rules.iter().find(|rule| {
        rule.trigger.on_demand().is_some()
            && rule.matching.accepts(&process.role, &process.name)
            && request.reports.iter().all(|name| rule.reports.contains(name))
    })
}
