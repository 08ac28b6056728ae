//! `diagctl status`: the lease, the state of each rule, the use of the store, and the polling processes.

pub(super) mod followed;
mod headline;
pub(super) mod lease;
mod processes;
mod rules;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::Done;
use super::times::Times;
use super::{Context, Failure, apart, deaths};
use crate::clock::Now;
use crate::config::{self, Config};
use crate::fsio::{self, Spot};
use crate::state::files::load_samples;
use crate::state::samples::Samples;
use diagctl_store::events::{self, Event};
use diagctl_store::requests::{self, Request};
use diagctl_store::{Access, Id, Store, index, inventory};
use followed::{Hook, Shipped};
use processes::{Process, processes, visible_as};
use rules::{Budget, RuleStatus, budgets, rules};

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
    /// Parts of the configuration that have no effect, or cannot work here as written.
    // The key of the first version.
    #[serde(rename = "doubts")]
    warnings: Vec<String>,
    /// Remarks about the configuration on this machine.
    notes: Vec<String>,
    lease: lease::Report,
    store: Room,
    rules: Vec<RuleStatus>,
    budgets: Vec<Budget>,
    requests: Vec<Request>,
    /// Captures on their way to the remote, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    shipped: Option<Shipped>,
    /// The hook, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<Hook>,
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
        warnings: warnings(cx, &store, &limits),
        notes: super::config_target::shares_of_host(config, &limits, cx.proc.host_memory().0.ok())
            .into_iter()
            .collect(),
        rules: rules(cx, &state, &samples, now.store_ms),
        budgets: budgets(config, &state, now.store_ms),
        requests: requests::list(&store)?,
        shipped: followed::shipped(cx, &store, now.store_ms)?,
        hook: followed::hook(cx, &store),
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
fn warnings(cx: &Context, store: &Store, limits: &[Option<u64>]) -> Vec<String> {
    let mut place = super::config_target::here(&cx.proc, cx.config(), Some(store));
    // Their programs and files are in their own image, not necessarily here.
    place.missing.clear();
    let known: Option<Vec<u64>> = limits.iter().copied().collect();
    let highest = known.and_then(|limits| limits.into_iter().max());
    place.memory = highest.into_iter().chain(place.memory).min();
    let warnings = cx.loaded.warnings(&place).into_iter();
    warnings.map(|warning| format!("{}: {}", warning.path, warning.message)).collect()
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

#[cfg(test)]
mod tests;
