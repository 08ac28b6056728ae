//! `diagctl status`: the lease, the state of each rule, the use of the store, and the polling processes.

mod headline;
pub(super) mod lease;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::Done;
use super::times::Times;
use super::{Context, Failure, apart, deaths};
use crate::cli::error::printable;
use crate::clock::Now;
use crate::config::{self, Config, Mode, Rule};
use crate::fsio::{self, Spot};
use crate::rules::limit::{self, Refusal};
use crate::state::files::load_samples;
use crate::state::samples::{Sample, Samples};
use crate::state::schedule::{RuleState, State};
use crate::units::{duration, ms};
use diagctl_observe::Presence;
use diagctl_store::events::{self, Event};
use diagctl_store::requests::{self, Request};
use diagctl_store::{Access, Id, Store, index, inventory};

/// The number of recent events that `--explain` shows.
const EVENTS_SHOWN: usize = 20;

/// A process of another container that has been silent for this long counts as gone, milliseconds. Nothing else tells from here.
const LOST_AFTER_MS: u64 = 600_000;

/// Show the state of the lease, rules, store and processes
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl status --explain\n  diagctl status --json | jq .store")]
pub struct Args {
    /// Add the reason for each process's last verdict, and recent events
    #[arg(long)]
    explain: bool,
    /// Show times in UTC instead of the local time zone
    #[arg(long)]
    utc: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The whole status. Durations are in milliseconds, relative to now.
#[derive(Debug, Serialize)]
struct Status {
    schema: u32,
    dir: String,
    /// Says in one sentence whether captures are taken.
    headline: String,
    switch: Switch,
    /// The problems of the configuration, while the last good one is in force.
    configuration: Option<String>,
    /// The file whose rules and limits are shown, if they come from one.
    configuration_file: Option<PathBuf>,
    /// A difference between this configuration and that of the processes.
    configuration_note: Option<String>,
    /// Parts of the configuration that cannot work here as written.
    doubts: Vec<String>,
    /// Remarks about the configuration on this machine.
    notes: Vec<String>,
    lease: lease::Report,
    store: Room,
    rules: Vec<RuleStatus>,
    budgets: Vec<Budget>,
    requests: Vec<Request>,
    processes: Vec<Process>,
    /// The processes that are gone without a goodbye, of the last day.
    deaths: deaths::Recent,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<Event>,
}

#[derive(Debug, Serialize)]
struct Switch {
    /// The switch in this environment; each process goes by its own.
    enabled: bool,
    source: String,
    paused: Option<String>,
}

#[derive(Debug, Serialize)]
struct Room {
    captures: usize,
    latest: Option<Id>,
    latest_age_ms: Option<u64>,
    used_bytes: u64,
    max_use_bytes: u64,
    free_disk_bytes: u64,
    keep_free_bytes: u64,
    quarantine_bytes: u64,
    damaged: BTreeMap<Id, String>,
}

#[derive(Debug, Serialize)]
struct RuleStatus {
    name: String,
    trigger: &'static str,
    dry_run: bool,
    /// The strongest state over the polling processes: `idle`, `skipped` (the trigger cannot be read), `pending`, `cooldown`,
    /// `throttled` or `guarded`.
    state: String,
    /// The guard, or how long the condition has held and must hold.
    detail: Option<String>,
    left_ms: Option<u64>,
    last_fired_ms: Option<u64>,
    fired_in_window: usize,
    max_count: Option<u32>,
    window_ms: u64,
    due_in_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Budget {
    name: &'static str,
    spent: u32,
    of: u32,
}

#[derive(Debug, Serialize)]
struct Process {
    /// The pid that the process has in its own container.
    pid: u32,
    pid_ns: u64,
    /// The pid under which it is visible here, if it is.
    pid_here: Option<u32>,
    role: String,
    name: String,
    rss_bytes: u64,
    polled_ms: u64,
    /// True if the process has ended.
    gone: bool,
    /// True if the process is alive but has missed its polls, and does not dump.
    silent: bool,
    /// True if the process holds the lease. It does not poll meanwhile.
    dumping: bool,
    /// True if a switch or a pause forbade captures at the last poll.
    off: bool,
    verdict: String,
    reason: String,
    /// Rules whose condition holds, with the time for which it has held.
    holding_ms: BTreeMap<String, u64>,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    // The thread that opens the store takes its owner's identity and then ends, so that root can still see which processes have
    // the lease file open.
    let mut status = apart::run(|| gather(cx, args.explain))??;
    status.headline = headline::headline(&status);
    status.lease.find_holders(&cx.proc, &Spot::outside(&cx.config().dir));
    Done::either(args.json, &status, |status| text::render(status, &Times::new(args.utc), args.explain))
}

fn gather(cx: &Context, explain: bool) -> Result<Status, Failure> {
    let config = cx.config();
    let store = cx.open(Access::Read)?;
    let (state, now) = cx.peek(&store)?;
    let source = cx.loaded.sources.get("enabled").map_or_else(|| "default".into(), ToString::to_string);
    let paused =
        state.paused.as_ref().filter(|pause| pause.holds(now.store_ms)).map(|pause| pause.reason(now.store_ms));
    let mut events = if explain { events::read(&store) } else { Vec::new() };
    events.drain(..events.len().saturating_sub(EVENTS_SHOWN));
    let samples = load_samples(&store);
    let limits = limits(cx, &samples);
    let lease = lease::Report::read(&cx.proc, store.dir(), &now)?;
    let processes = processes(cx, &samples, &lease, now.store_ms);
    Ok(Status {
        schema: 1,
        dir: store.dir().display().to_string(),
        headline: String::new(),
        switch: Switch { enabled: config.enabled, source, paused },
        lease,
        store: room(config, &store, &now)?,
        configuration: cx.loaded.broken.clone(),
        configuration_file: cx.loaded.borrowed.clone().or_else(|| cx.loaded.file.clone()),
        configuration_note: configuration_note(cx, &store),
        doubts: doubts(cx, &store, &limits),
        notes: super::config_target::shares_of_host(config, &limits, cx.proc.host_memory().0.ok())
            .into_iter()
            .collect(),
        rules: rules(cx, &state, &samples, now.store_ms),
        budgets: budgets(config, &state, now.store_ms),
        requests: requests::list(&store)?,
        processes,
        deaths: deaths::recent(cx, &store, now.store_ms),
        events,
    })
}

// A shell often lacks the workers' DIAGCTL_CONFIG, and would silently show other rules than theirs.
fn configuration_note(cx: &Context, store: &Store) -> Option<String> {
    let loaded = &cx.loaded;
    if let Some(file) = &loaded.borrowed {
        return Some(format!("this environment names no file; shown is {}, which the processes use", file.display()));
    }
    let copy = config::copy_in(store.dir()).filter(|copy| loaded.broken.is_none() && !copy.agrees_with(loaded))?;
    let (here, theirs) = (loaded.file.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE)), copy.file.display());
    Some(if here == copy.file {
        format!("{theirs} has changed since a process last read it")
    } else {
        format!("shown is {}, but the processes last used {theirs}; set DIAGCTL_CONFIG={theirs}", here.display())
    })
}

// Uses the memory limit of the processes; if they have several, the highest.
fn doubts(cx: &Context, store: &Store, limits: &[Option<u64>]) -> Vec<String> {
    let mut place = super::config_target::here(&cx.proc, cx.config(), Some(store));
    let known: Option<Vec<u64>> = limits.iter().copied().collect();
    let highest = known.and_then(|limits| limits.into_iter().max());
    place.memory = highest.into_iter().chain(place.memory).min();
    cx.config().doubts(&[], &place).into_iter().map(|doubt| format!("{}: {}", doubt.path, doubt.message)).collect()
}

// Returns the memory limit of each process that is visible from here.
fn limits(cx: &Context, samples: &Samples) -> Vec<Option<u64>> {
    let visible = samples.processes.keys().filter_map(|id| visible_as(cx.proc.presence(id)));
    visible.map(|pid| cx.cgroups.memory_of(&cx.proc, pid).ok()?.limit()).collect()
}

fn room(config: &Config, store: &Store, now: &Now) -> Result<Room, Failure> {
    let summary = index::summary(store)?;
    let (free_disk_bytes, total) = store.space()?;
    let latest = summary.latest.as_ref();
    let quarantine = store.path("quarantine");
    Ok(Room {
        captures: summary.captures,
        latest: latest.map(|entry| entry.id),
        latest_age_ms: latest.map(|entry| now.store_ms.saturating_sub(entry.store_ms)),
        used_bytes: inventory::reports_bytes(store)?.saturating_add(inventory::other_bytes(store)),
        max_use_bytes: config.retention.max_use,
        free_disk_bytes,
        keep_free_bytes: config.retention.keep_free.of(total),
        quarantine_bytes: fsio::children(&quarantine)
            .map(|entry| fsio::occupied_tree(&quarantine.join(entry.name)))
            .sum(),
        damaged: summary.damaged.into_iter().collect(),
    })
}

fn rules(cx: &Context, state: &State, samples: &Samples, now_ms: u64) -> Vec<RuleStatus> {
    let polling: Vec<&Sample> =
        samples.processes.values().filter(|sample| sample.is_fresh(now_ms, cx.config().poll_ms())).collect();
    let status = |rule: &Rule| rule_status(rule, state.rules.get(&*rule.name), &polling, now_ms);
    cx.config().rules.iter().map(status).collect()
}

fn rule_status(rule: &Rule, marks: Option<&RuleState>, polling: &[&Sample], now_ms: u64) -> RuleStatus {
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
fn told(rule: &Rule, polling: &[&Sample]) -> (String, Option<String>, Option<u64>) {
    let refusals = || polling.iter().filter_map(|sample| Some((*sample, sample.refusals.get(&*rule.name)?)));
    for verdict in ["guarded", "throttled", "cooldown", "pending", "skipped"] {
        let Some((sample, refused)) = refusals().find(|(_, refused)| refused.verdict == verdict) else { continue };
        let detail = match (&refused.guard, sample.holding.get(&*rule.name)) {
            (Some(guard), _) => Some(format!("by {guard}")),
            _ if verdict == "skipped" => Some(refused.reason.trim_start_matches("skipped: ").to_owned()),
            (None, Some(held)) if verdict == "pending" => {
                let held_ms = held.last.saturating_sub(held.since);
                Some(format!("{} of {}", super::times::age(0, held_ms), duration(ms(rule.hold_for))))
            }
            _ => None,
        };
        return (verdict.to_owned(), detail, None);
    }
    ("idle".into(), None, None)
}

fn budgets(config: &Config, state: &State, now_ms: u64) -> Vec<Budget> {
    let spent = |window_ms: u64| {
        let recent = state.spent.iter().filter(|spent| now_ms.saturating_sub(spent.at) < window_ms);
        recent.map(|spent| spent.units).sum()
    };
    vec![
        Budget { name: "hour", spent: spent(3_600_000), of: config.limits.budget_hour },
        Budget { name: "day", spent: spent(86_400_000), of: config.limits.budget_day },
    ]
}

fn visible_as(presence: Presence) -> Option<u32> {
    if let Presence::Here(pid) = presence { Some(pid) } else { None }
}

fn processes(cx: &Context, samples: &Samples, lease: &lease::Report, now_ms: u64) -> Vec<Process> {
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

#[cfg(test)]
mod tests;
