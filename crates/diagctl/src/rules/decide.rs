//! The rule engine: a pure function of configuration, state, samples, readings and now.
//!
//! It reads no clock, file or random source, and changes nothing that it is given. `acquire` gathers the values, calls
//! [`decide`] once, and writes the changes that the decision carries. Tests and simulations call it with values of their own.

mod answer;
mod charge;
mod inputs;
mod request;
mod select;

use diagctl_store::ReportName;
use std::collections::BTreeMap;

use crate::rules::guard;
use crate::rules::limit::{self, Refusal};
use crate::rules::memory::Metric;
use crate::rules::rule::{Mode, Rule, Select};
use crate::rules::trigger::{Facts, Observed, Outcome, View};
use crate::state::samples::{Refused, Sample};
use crate::state::schedule::{Pair, ReportCost, State};
use crate::units::{duration, ms};
pub use answer::{Answer, Changes, Decision, Dropped, Plan, Verdict};
pub use charge::charge;
use charge::{fire, settle_events};
pub use inputs::{Costs, Inputs, Others, Settings};
use request::answer_request;
pub use request::without_asking;
use select::{chosen_instead, in_sample};

/// The longest time between two polls, in milliseconds. It bounds the time until a changed configuration is noticed.
const LONGEST_WAIT_MS: u64 = 60_000;

/// The second capture of a pair is given up after this delay, in milliseconds.
const PAIR_PATIENCE_MS: u64 = 600_000;

// A working copy that the rules modify in turn, and the text for the process, which all of them need.
struct Draft {
    subject: String,
    state: State,
    sample: Sample,
}

/// Decides what may be captured now. If a plan is granted, [`charge`] accounts for it.
pub fn decide(input: Inputs<'_>) -> Decision {
    let Inputs { settings, process, readings, now, .. } = input;
    let now_ms = now.store_ms;
    let poll_ms = settings.poll_ms;
    let rss = readings.memory.get(Metric::Rss).unwrap_or(0);
    let mut draft = Draft {
        subject: process.id.key(),
        state: input.state.clone(),
        sample: Sample::at_poll(input.sample, process, rss, now_ms),
    };
    if draft.state.clock.is_none() || now.stepped_back_ms.is_some() {
        draft.state.clock = Some(now.anchor());
    }

    let mut answers = Vec::new();
    let mut plans = Vec::new();
    let mut dropped = Vec::new();
    let mut wait_ms = LONGEST_WAIT_MS;
    let mut refused_requests = BTreeMap::new();
    for request in input.requests.iter().filter(|request| request.is_for(process)) {
        let (answer, plan) = answer_request(input, request, &draft.state);
        if plan.is_none() {
            refused_requests.insert(
                request.id.clone(),
                Refused {
                    reason: without_asking(&answer.reason, request).unwrap_or_default().to_owned(),
                    ..refused_as(&answer)
                },
            );
        }
        wait_ms = wait_ms.min(answer.wait_ms.unwrap_or(poll_ms));
        answers.push(answer);
        plans.extend(plan);
    }
    for rule in settings.rules {
        if !rule.matching.accepts(&process.role, &process.name) {
            continue;
        }
        if !rule.trigger.is_timers_only() {
            wait_ms = wait_ms.min(poll_ms);
        }
        dropped.extend(hear_events(input, rule, &mut draft.sample));
        let (answer, plan) = answer_rule(input, rule, &mut draft);
        if answer.settles && settle_events(&rule.name, &mut draft.sample) && answer.verdict > Verdict::Idle {
            dropped.push(Dropped { rule: rule.name.to_string(), reason: answer.reason.clone() });
        }
        // A rule that could fire is evaluated again at the next poll.
        wait_ms = wait_ms.min(answer.wait_ms.unwrap_or(match answer.verdict {
            Verdict::Idle => LONGEST_WAIT_MS,
            _ => poll_ms,
        }));
        answers.push(answer);
        plans.extend(plan);
    }
    // The rules on an event come first if the caller waits for their answer, then requests, then the rule that has waited
    // longest, so that a rule cannot be starved by one earlier in the file.
    // Among rules that never fired, those whose event was named at this poll come first: a worker killer may be waiting for
    // this very answer.
    let last_fired = |plan: &Plan| draft.state.rules.get(&*plan.rule).and_then(|marks| marks.fires.last()).copied();
    let is_named_now = |plan: &Plan| {
        let named = draft.sample.named.get(&*plan.rule);
        named.is_some_and(|named| named.values().any(|event| event.at == now_ms))
    };
    let awaited: Vec<String> = match readings.awaited.as_deref() {
        None => Vec::new(),
        Some(event) => rules_on(event, input).map(|rule| rule.name.to_string()).collect(),
    };
    let is_awaited = |plan: &Plan| {
        plan.request.is_none() && plan.second_of.is_none() && awaited.iter().any(|name| plan.rule == **name)
    };
    plans.sort_by_key(|plan| match plan.request {
        Some(_) => (true, None, false),
        None => (!is_awaited(plan), last_fired(plan), !is_named_now(plan)),
    });
    let retry_ms = wait_ms.clamp(poll_ms.min(100), LONGEST_WAIT_MS.max(poll_ms));
    let Draft { state, mut sample, .. } = draft;
    sample.next_poll = now_ms + retry_ms;
    let refused = answers.iter().filter(|a| a.skipped || (a.verdict > Verdict::Idle && a.verdict < Verdict::Granted));
    sample.refusals = refused.map(|a| (a.rule.clone(), refused_as(a))).collect();
    sample.refused_requests = refused_requests;
    Decision { plans, answers, awaited, dropped, retry_ms, changes: Changes { state, sample } }
}

// Returns the rules on an event that are about the process.
fn rules_on<'a>(event: &'a str, input: Inputs<'a>) -> impl Iterator<Item = &'a Rule> {
    let Inputs { settings, process, .. } = input;
    let rules = settings.rules.iter().filter(|rule| rule.matching.accepts(&process.role, &process.name));
    rules.filter(move |rule| rule.trigger.events().contains(&event))
}

fn refused_as(answer: &Answer) -> Refused {
    Refused {
        verdict: if answer.skipped { "skipped" } else { answer.verdict.name() }.to_owned(),
        guard: answer.guard.map(str::to_owned),
        reason: answer.reason.clone(),
    }
}

// Records the events that this poll names for a rule that watches them. Returns those that have expired.
fn hear_events(input: Inputs<'_>, rule: &Rule, sample: &mut Sample) -> Vec<Dropped> {
    let Inputs { settings, readings, now, .. } = input;
    if !readings.events.is_empty() {
        let events = rule.trigger.events();
        let named = events.into_iter().filter(|event| readings.events.contains(*event));
        sample.name_events(&rule.name, named, now.store_ms, settings.poll_ms);
    }
    let late = sample.give_up_events(&rule.name, now.store_ms);
    let why = sample.refusals.get(&*rule.name).map_or_else(|| "nothing let it through".into(), |r| r.reason.clone());
    let told = late.into_iter().map(|(event, named)| {
        let ago = duration(now.store_ms.saturating_sub(named.at));
        Dropped { rule: rule.name.to_string(), reason: format!("event {event} was given up after {ago}: {why}") }
    });
    told.collect()
}

fn answer_rule(input: Inputs<'_>, rule: &Rule, draft: &mut Draft) -> (Answer, Option<Plan>) {
    let Inputs { settings, process, readings, now, .. } = input;
    let now_ms = now.store_ms;
    let path = rule.trigger.name();
    let before = draft.state.rules.get(&*rule.name).cloned().unwrap_or_default();
    let mut marks = before.clone();
    let known = draft.sample.marks.get(&*rule.name).cloned().unwrap_or_default();
    let named = draft.sample.named.get(&*rule.name).cloned().unwrap_or_default();
    let view = View {
        now_ms,
        first_seen_ms: draft.sample.first_seen,
        name: &rule.name,
        rule: &before,
        marks: &known,
        readings,
        named: &named,
        subject: &draft.subject,
        requested: false,
    };
    rule.trigger.prepare(path, view, input.seed, &mut marks);
    let outcome = rule.trigger.evaluate(path, View { rule: &marks, ..view });
    let mut observed = known.clone();
    rule.trigger.observe(path, view, &mut observed);
    if !observed.is_empty() {
        draft.sample.marks.insert(rule.name.to_string(), observed);
    }
    if marks != before {
        draft.state.rules.insert(rule.name.to_string(), marks.clone());
        draft.state.clock = Some(now.anchor());
    }

    let answer = |verdict, reason: String, observed: Observed, wait_ms| Answer {
        rule: rule.name.to_string(),
        observed,
        wait_ms,
        ..Answer::plain(verdict, reason)
    };
    let last_word = |answer| Answer { settles: true, ..answer };
    if let Some(pair) = &marks.pair {
        return second_of_pair(input, rule, pair, draft);
    }
    if !in_sample(rule, input.host, now_ms) {
        let reason = format!("this machine is not in today's sample of {}%", rule.sample);
        return (last_word(answer(Verdict::Idle, reason, Observed::new(), Some(LONGEST_WAIT_MS))), None);
    }
    let facts = match outcome {
        Outcome::Holds(facts) => facts,
        other => {
            draft.sample.holding.remove(&*rule.name);
            return match other {
                Outcome::Waits(facts, at) => {
                    let wait = at.map(|at| at.saturating_sub(now_ms));
                    (last_word(answer(Verdict::Idle, facts.reason, facts.observed, wait)), None)
                }
                Outcome::Unreadable(why) => {
                    let reason = format!("skipped: {why}");
                    let skipped = answer(Verdict::Idle, reason, Observed::new(), Some(settings.poll_ms));
                    (Answer { skipped: true, ..skipped }, None)
                }
                Outcome::Holds(_) => unreachable!("handled above"),
            };
        }
    };
    let held_ms = now_ms - draft.sample.hold(&rule.name, now_ms, settings.poll_ms);
    let hold_for = ms(rule.hold_for);
    if held_ms < hold_for {
        let reason = format!("{}, for {} of {}", facts.reason, duration(held_ms), duration(hold_for));
        return (
            answer(Verdict::Pending, reason, facts.observed, Some(settings.poll_ms.min(hold_for - held_ms))),
            None,
        );
    }
    let facts = if hold_for > 0 {
        Facts { reason: format!("{} for {}", facts.reason, duration(hold_for)), ..facts }
    } else {
        facts
    };
    let units = rule.reports.iter().map(|name| settings.costs.cost_of(name)).sum();
    let own = limit::check_own(&rule.limits, &marks, || draft.subject.clone(), now_ms);
    let settles = own.is_some();
    let refusal = own.or_else(|| limit::check_budgets(settings.limits, &draft.state.spent, units, now_ms));
    if let Some(refusal) = refusal {
        let (verdict, why, left_ms) = refused_by(refusal);
        let refused = answer(verdict, format!("{}; {why}", facts.reason), facts.observed, Some(left_ms));
        return (Answer { settles, ..refused }, None);
    }
    if rule.select != Select::First
        && let Some(chosen) =
            chosen_instead(rule, process, &draft.sample, &marks, &input.others.samples(), now_ms, settings.poll_ms)
    {
        let whose = if chosen.pid == process.id.pid { " of another container" } else { "" };
        let reason = format!("{}; process {}{whose} is to take it (select)", facts.reason, chosen.pid);
        return (answer(Verdict::Idle, reason, facts.observed, Some(settings.poll_ms)), None);
    }
    if let Some(refusal) = check_guards(input, &rule.reports, &draft.state.costs) {
        let reason = format!("{}; {}", facts.reason, refusal.reason);
        let guarded = Answer { guard: Some(refusal.guard), ..answer(Verdict::Guarded, reason, facts.observed, None) };
        return (guarded, None);
    }
    let plan = Plan {
        rule: rule.name.clone(),
        trigger: path,
        reason: facts.reason,
        observed: facts.observed,
        reports: rule.reports.clone(),
        snapshot: rule.snapshot,
        request: None,
        second_of: None,
    };
    granted(input, rule, plan, draft)
}

// In a dry run, everything happens except the capture. The rule's own limits apply, so that the dry run shows what enforcement
// would do. The store's budget and the cooldowns of other rules are left for real captures.
fn granted(input: Inputs<'_>, rule: &Rule, plan: Plan, draft: &mut Draft) -> (Answer, Option<Plan>) {
    let answer = |verdict, reason| Answer {
        rule: rule.name.to_string(),
        observed: plan.observed.clone(),
        ..Answer::plain(verdict, reason)
    };
    if rule.mode == Mode::DryRun {
        fire(input, &plan, draft);
        let would = answer(Verdict::Idle, format!("dry run: would capture, {}", plan.reason));
        return (Answer { dry_run: true, wait_ms: Some(input.settings.poll_ms), ..would }, None);
    }
    (answer(Verdict::Granted, plan.reason.clone()), Some(plan))
}

// Plans the second capture of a pair, or the next of three. It is of the same process, whatever the trigger says by then. Guards and budgets apply.
fn second_of_pair(input: Inputs<'_>, rule: &Rule, pair: &Pair, draft: &mut Draft) -> (Answer, Option<Plan>) {
    let Inputs { settings, process, now, .. } = input;
    let answer = |verdict, reason: String, guard, wait_ms| Answer {
        rule: rule.name.to_string(),
        guard,
        wait_ms,
        ..Answer::plain(verdict, reason)
    };
    let (which, before) = match (rule.follow_ups, pair.left) {
        (0 | 1, _) => ("second of a pair", "first"),
        (_, 0) => ("third of three", "second"),
        _ => ("second of three", "first"),
    };
    let reason = format!("{which}, {} after the {before}", duration(ms(rule.pair_delay.unwrap_or_default())));
    let late = now.store_ms.saturating_sub(pair.due);
    if late > PAIR_PATIENCE_MS.max(10 * settings.poll_ms) || rule.pair_delay.is_none() {
        // The process is gone, or the guards have refused for too long. Captures that far apart are not worth comparing.
        if let Some(marks) = draft.state.rules.get_mut(&*rule.name) {
            marks.pair = None;
        }
        return (answer(Verdict::Idle, format!("{reason}; given up"), None, Some(settings.poll_ms)), None);
    }
    if !pair.process.is(&process.id) {
        return (
            answer(
                Verdict::Idle,
                format!("{reason}, is owed by process {}", pair.process.pid),
                None,
                Some(settings.poll_ms),
            ),
            None,
        );
    }
    let wait = pair.due.saturating_sub(now.store_ms);
    if wait > 0 {
        return (answer(Verdict::Idle, format!("{reason}; due in {}", duration(wait)), None, Some(wait)), None);
    }
    let units = rule.reports.iter().map(|name| settings.costs.cost_of(name)).sum();
    if let Some(Refusal::Throttled { reason: why, left_ms } | Refusal::Cooldown { reason: why, left_ms }) =
        limit::check_budgets(settings.limits, &draft.state.spent, units, now.store_ms)
    {
        return (answer(Verdict::Throttled, format!("{reason}; {why}"), None, Some(left_ms)), None);
    }
    if let Some(refusal) = check_guards(input, &rule.reports, &draft.state.costs) {
        return (answer(Verdict::Guarded, format!("{reason}; {}", refusal.reason), Some(refusal.guard), None), None);
    }
    let plan = Plan {
        rule: rule.name.clone(),
        trigger: rule.trigger.name(),
        reason,
        observed: Observed::new(),
        reports: rule.reports.clone(),
        snapshot: rule.snapshot,
        request: None,
        second_of: Some(pair.first),
    };
    granted(input, rule, plan, draft)
}

fn refused_by(refusal: Refusal) -> (Verdict, String, u64) {
    match refusal {
        Refusal::Cooldown { reason, left_ms } => (Verdict::Cooldown, reason, left_ms),
        Refusal::Throttled { reason, left_ms } => (Verdict::Throttled, reason, left_ms),
    }
}

// Runs the guards for a capture of these reports by the polling process.
fn check_guards(
    input: Inputs<'_>,
    reports: &[ReportName],
    costs: &BTreeMap<String, ReportCost>,
) -> Option<guard::Refusal> {
    let role = &input.process.role;
    guard::check(input.settings.guards, input.figures, reports, |name| costs.get(&format!("{role}/{name}")).copied())
}

#[cfg(test)]
mod tests;
