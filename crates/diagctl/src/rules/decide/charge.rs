//! Accounting for a capture: limits, budgets, timers, levels, and the events that it answers.

use super::{Changes, Draft, Inputs, Plan};
use crate::rules::limit;
use crate::rules::trigger::View;
use crate::state::samples::{Marks, Named, Sample};
use crate::state::schedule::{Pair, State};
use crate::units::ms;
use diagctl_store::Process;

/// Accounts for a granted plan: limits, budgets, timers, levels, and the events that it answers. The caller writes the changes
/// before it announces the grant.
pub fn charge(input: Inputs<'_>, plan: &Plan) -> Changes {
    let mut draft = Draft {
        subject: input.process.id.key(),
        state: input.state.clone(),
        sample: input.sample.cloned().unwrap_or_default(),
    };
    let units = plan.reports.iter().map(|name| input.settings.costs.cost_of(name)).sum();
    limit::spend(&mut draft.state.spent, units, input.now.store_ms);
    draft.state.generation += 1;
    fire(input, plan, &mut draft);
    if plan.second_of.is_none() {
        cover(input, plan, &mut draft.state);
    }
    Changes { state: draft.state, sample: draft.sample }
}

// Updates the rule's state after it fired.
pub(super) fn fire(input: Inputs<'_>, plan: &Plan, draft: &mut Draft) {
    if plan.request.is_none() && plan.second_of.is_none() {
        settle_events(&plan.rule, &mut draft.sample);
    }
    let state = &mut draft.state;
    let now_ms = input.now.store_ms;
    let rule = input.settings.rules.iter().find(|rule| rule.name == plan.rule);
    let before = state.rules.get(&*plan.rule).cloned().unwrap_or_default();
    state.clock = Some(input.now.anchor());
    let marks = state.rules.entry(plan.rule.to_string()).or_default();
    let pair = marks.pair.take();
    let delay = rule.and_then(|rule| rule.pair_delay);
    if plan.second_of.is_some() {
        // A pair counts as one firing: its second half costs budget and nothing else. So do the second and third of three.
        let next = pair.filter(|pair| pair.left > 0).zip(delay);
        marks.pair = next.map(|(pair, delay)| Pair { due: now_ms + ms(delay), left: pair.left - 1, ..pair });
        return;
    }
    limit::charge(rule.map(|r| &r.limits), marks, &input.process.id.key(), now_ms);
    marks.last_pid = input.process.id.pid;
    marks.last = Some(input.process.id.clone());
    if let Some(delay) = delay.filter(|_| plan.request.is_none()) {
        let (process, due) = (input.process.id.clone(), now_ms + ms(delay));
        let left = rule.map_or(0, |rule| rule.follow_ups).saturating_sub(1);
        marks.pair = Some(Pair { process, due, first: state.generation, left });
    }
    if let Some(rule) = rule {
        let (marks_of_process, named) = (Marks::new(), Named::new());
        let view = View {
            now_ms,
            first_seen_ms: 0,
            name: &rule.name,
            rule: &before,
            marks: &marks_of_process,
            readings: input.readings,
            named: &named,
            subject: &draft.subject,
            requested: false,
        };
        rule.trigger.fired(rule.trigger.name(), view, input.seed, marks);
    }
}

// Starts the cooldown of every other rule whose reports are all part of this capture.
fn cover(input: Inputs<'_>, plan: &Plan, state: &mut State) {
    let Process { role, name, .. } = input.process;
    for rule in input.settings.rules {
        let contained = rule.reports.iter().all(|report| plan.reports.contains(report));
        if rule.name != plan.rule && contained && !rule.limits.cooldown.is_zero() && rule.matching.accepts(role, name) {
            state.rules.entry(rule.name.to_string()).or_default().covered = Some(input.now.store_ms);
        }
    }
}

// Drops the events that wait for the rule. Returns true if there were any.
pub(super) fn settle_events(rule: &str, sample: &mut Sample) -> bool {
    sample.named.remove(rule).is_some()
}
