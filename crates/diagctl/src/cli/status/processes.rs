//! The processes in `diagctl status`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{LOST_AFTER_MS, lease};
use crate::cli::Context;
use crate::cli::error::printable;
use crate::state::samples::Samples;
use diagctl_observe::Presence;

#[derive(Debug, Serialize)]
pub(super) struct Process {
    /// The pid that the process has in its own container.
    pub(super) pid: u32,
    pub(super) pid_ns: u64,
    /// The pid under which it is visible here, if it is.
    pub(super) pid_here: Option<u32>,
    pub(super) role: String,
    pub(super) name: String,
    pub(super) rss_bytes: u64,
    pub(super) polled_ms: u64,
    /// True if the process has ended.
    pub(super) gone: bool,
    /// True if the process is alive but has missed its polls, and does not dump.
    pub(super) silent: bool,
    /// True if the process holds the lease. It does not poll meanwhile.
    pub(super) dumping: bool,
    /// True if a switch or a pause forbade captures at the last poll.
    pub(super) off: bool,
    pub(super) verdict: String,
    pub(super) reason: String,
    /// Rules whose condition holds, with the time for which it has held.
    pub(super) holding_ms: BTreeMap<String, u64>,
}

pub(super) fn visible_as(presence: Presence) -> Option<u32> {
    if let Presence::Here(pid) = presence { Some(pid) } else { None }
}

pub(super) fn processes(cx: &Context, samples: &Samples, lease: &lease::Report, now_ms: u64) -> Vec<Process> {
    let mut processes: Vec<Process> = samples
        .processes
        .clone()
        .into_iter()
        .map(|(id, sample)| {
            let presence = cx.proc.presence(&id);
            let lost_ms = now_ms.saturating_sub(sample.next_poll.saturating_add(LOST_AFTER_MS));
            let gone = presence == Presence::Gone || (presence == Presence::Elsewhere && lost_ms > 0);
            let dumping = !gone && lease.is_held_by(&id);
            Process {
                pid: id.pid,
                pid_ns: id.pid_ns,
                pid_here: visible_as(presence),
                gone,
                dumping,
                silent: !gone && !dumping && !sample.is_fresh(now_ms, cx.config().poll_ms()),
                off: sample.is_off(),
                rss_bytes: sample.rss,
                polled_ms: now_ms.saturating_sub(sample.last_seen),
                role: sample.role,
                name: sample.name,
                verdict: sample.verdict,
                reason: printable(&sample.reason),
                holding_ms: sample
                    .holding
                    .into_iter()
                    .map(|(rule, h)| (rule, now_ms.saturating_sub(h.since)))
                    .collect(),
            }
        })
        .collect();
    processes.sort_by(|a, b| (a.gone, &a.role, &a.name, a.pid).cmp(&(b.gone, &b.role, &b.name, b.pid)));
    processes
}
