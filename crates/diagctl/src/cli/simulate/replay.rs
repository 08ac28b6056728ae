//! Replays recorded samples against the rules.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::cli::Context;
use crate::clock::{self, Anchor, Reading};
use crate::history::Recorded;
use crate::rules::decide::{self, Inputs};
use crate::rules::guard::Figures;
use crate::rules::memory::Metric;
use crate::state::samples::Samples;
use crate::state::schedule::State;
use diagctl_store::ProcessId;

#[derive(Serialize)]
pub(super) struct Simulation {
    pub(super) schema: u32,
    pub(super) samples: usize,
    pub(super) processes: usize,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) fired: Vec<Fired>,
    /// By rule: the number of polls with each verdict.
    pub(super) answers: BTreeMap<String, BTreeMap<&'static str, usize>>,
}

#[derive(Serialize)]
pub(super) struct Fired {
    pub(super) at: String,
    pub(super) rule: String,
    pub(super) pid: u32,
    pub(super) role: String,
    pub(super) worker: String,
    pub(super) reports: Vec<diagctl_store::ReportName>,
    pub(super) reason: String,
}

pub(super) fn simulate(cx: &Context, recorded: &[Recorded]) -> Simulation {
    let (mut state, mut samples) = (State::default(), Samples::default());
    let mut fired = Vec::new();
    let mut answers: BTreeMap<String, BTreeMap<&'static str, usize>> = BTreeMap::new();
    let host = cx.proc.hostname();
    for sample in recorded {
        let (process, readings) = sample.replay();
        let wall_ms = i64::try_from(sample.at).unwrap_or(i64::MAX);
        let reading = Reading { wall_ms, boot_ms: sample.at, boot_id: "simulation".into() };
        let now = Anchor::place(state.clock.as_ref(), reading);
        let figures = Figures {
            rss: readings.memory.get(Metric::Rss).unwrap_or(0),
            available_memory: u64::MAX,
            free_disk: u64::MAX / 2,
            total_disk: u64::MAX / 2,
            ..Figures::default()
        };
        let inputs = Inputs {
            settings: cx.config().settings(),
            process: &process,
            readings: &readings,
            requests: &[],
            figures: &figures,
            host: &host,
            now: &now,
            // The jitter is the same in every run.
            seed: sample.at ^ u64::from(sample.pid),
            state: &state,
            sample: samples.processes.get(&process.id),
            others: &samples,
        };
        let decision = decide::decide(inputs);
        for answer in &decision.answers {
            *answers.entry(answer.rule.clone()).or_default().entry(answer.verdict.name()).or_default() += 1;
        }
        let dry = decision.answers.iter().filter(|answer| answer.dry_run);
        let would: Vec<(String, String)> = dry.map(|a| (a.rule.clone(), a.reason.clone())).collect();
        let mut changes = decision.changes;
        let plan = decision.plans.into_iter().next();
        if let Some(plan) = &plan {
            changes = decide::charge(Inputs { state: &changes.state, sample: Some(&changes.sample), ..inputs }, plan);
        }
        state = changes.state;
        samples.processes.insert(process.id, changes.sample);
        for (rule, reason) in plan.map(|plan| (plan.rule.to_string(), plan.reason)).into_iter().chain(would) {
            let reports =
                cx.config().rules.iter().find(|r| *r.name == rule).map(|r| r.reports.clone()).unwrap_or_default();
            fired.push(Fired {
                at: clock::utc(wall_ms),
                rule,
                pid: sample.pid,
                role: sample.role.clone(),
                worker: sample.name.clone(),
                reports,
                reason,
            });
        }
    }
    let at =
        |sample: Option<&Recorded>| sample.map(|s| clock::utc(i64::try_from(s.at).unwrap_or(0))).unwrap_or_default();
    let processes: BTreeSet<ProcessId> = recorded.iter().map(Recorded::process).collect();
    Simulation {
        schema: 1,
        samples: recorded.len(),
        processes: processes.len(),
        from: at(recorded.first()),
        to: at(recorded.last()),
        fired,
        answers,
    }
}

// Returns the median interval between two samples of one process.
pub(super) fn usual_step(recorded: &[Recorded]) -> Option<u64> {
    let mut last: BTreeMap<ProcessId, u64> = BTreeMap::new();
    let mut steps = Vec::new();
    for sample in recorded {
        if let Some(before) = last.insert(sample.process(), sample.at) {
            steps.push(sample.at - before);
        }
    }
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied()
}
