//! The answer of `diagctl acquire`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::Done;
use crate::config::Snapshot;
use crate::exit_code::Exit;
use crate::grant::dump_limits::{self, Watch};
use crate::rules::decide::{Answer, Plan, Verdict};
use crate::rules::trigger::Observed;
use diagctl_store::report_kind::Producer;
use diagctl_store::{Id, Store};

#[derive(Serialize)]
pub(super) struct Output<'a> {
    pub(super) schema: u32,
    pub(super) verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capture: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dir: Option<&'a std::path::Path>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) guard: Option<&'a str>,
    pub(super) reason: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) observed: &'a Observed,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reports: Option<Vec<ReportWanted<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) watch: Vec<Watch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<&'a str>,
    pub(super) retry_after: f64,
    pub(super) poll_interval: f64,
}

#[derive(Serialize)]
pub(super) struct ReportWanted<'a> {
    pub(super) name: &'a str,
    pub(super) producer: Producer,
    pub(super) options: Map<String, Value>,
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a wait")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

pub(super) fn refused(cx: &Context, answer: &Answer, retry_ms: u64) -> Result<Done, Failure> {
    let done = Done::json(&Output {
        schema: 1,
        verdict: answer.verdict.name(),
        capture: None,
        dir: None,
        rule: &answer.rule,
        guard: answer.guard,
        reason: &answer.reason,
        observed: &answer.observed,
        reports: None,
        snapshot: None,
        deadline: None,
        watch: Vec::new(),
        warning: cx.loaded.broken.as_deref(),
        retry_after: seconds(retry_ms),
        poll_interval: seconds(cx.config().poll_ms()),
    })?;
    Ok(done.with_exit(Exit::NotGranted))
}

pub(super) fn told(
    cx: &Context,
    store: &Store,
    pid: u32,
    plan: &Plan,
    capture: Id,
    retry_ms: u64,
) -> Result<Done, Failure> {
    let reports: Vec<ReportWanted<'_>> = plan
        .reports
        .iter()
        .map(|name| ReportWanted {
            name,
            producer: cx.config().producer(name),
            options: cx.config().report_options(name),
        })
        .filter(|report| report.producer != Producer::Native)
        .collect();
    let forks = plan.snapshot == Snapshot::Fork && reports.iter().any(|r| r.producer == Producer::Snapshot);
    let watch = if forks { dump_limits::of(&cx.proc, &cx.cgroups, pid) } else { Vec::new() };
    Done::json(&Output {
        schema: 1,
        verdict: Verdict::Granted.name(),
        capture: Some(capture),
        dir: Some(store.staging(&capture).path()),
        rule: &plan.rule,
        guard: None,
        reason: &plan.reason,
        observed: &plan.observed,
        reports: Some(reports),
        snapshot: Some(match plan.snapshot {
            Snapshot::Fork => "fork",
            Snapshot::InProcess => "in_process",
        }),
        deadline: Some(cx.config().guards.deadline.as_secs_f64()),
        watch,
        warning: cx.loaded.broken.as_deref(),
        retry_after: seconds(retry_ms.min(cx.config().poll_ms())),
        poll_interval: seconds(cx.config().poll_ms()),
    })
}
