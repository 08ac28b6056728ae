//! `diagctl deaths`: lists processes that polled and are gone.

mod crash_report;
mod recent;
mod text;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::output::{self, Done};
use super::times::{self, Moment, Times};
use super::{Context, Failure};
use crate::clock;
use crate::deaths::{Death, Deaths};
use crate::history::{self, Head, Lines};
use crate::state::files::load_samples;
use crate::units;
use diagctl_observe::{Presence, ProcessId};
use diagctl_store::Store;
use diagctl_store::index::{Entry as Indexed, Listing};
use diagctl_store::{Access, Id, events};

pub(super) use recent::{Recent, recent};

/// List processes that polled and are gone without a goodbye
///
/// From the recorded polls: when each was last seen, its memory then, how it ended as far as that can be known, and its captures.
/// A process that was stopped says goodbye and is not listed, unless a worker killer announced that it would stop it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl deaths --since 24h")]
pub struct Args {
    /// Only those last seen within this time (90m, 2h, 14d), or since a time (2026-11-22 10:15, 2026-11-22T10:15:30Z)
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Print JSON, with the polls of the last ten minutes and the verdicts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct View {
    schema: u32,
    deaths: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    #[serde(flatten)]
    death: Death,
    ended: String,
    last_seen_ago_ms: u64,
    captures: Vec<Id>,
    /// The report of Ruby itself about a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    crash_report: Option<PathBuf>,
    /// The last verdicts about the process, oldest first.
    verdicts: Vec<Said>,
}

#[derive(Debug, Serialize)]
struct Said {
    at: String,
    verdict: String,
    reason: String,
}

/// Verdicts that are shown for each process.
const VERDICTS: usize = 10;

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let times = Times::new(false);
    let is_wanted = |death: &Death| {
        let seen = clock::utc(i64::try_from(death.last_ms).unwrap_or(i64::MAX));
        let age_ms = now.store_ms.saturating_sub(death.last_ms);
        args.since.as_ref().is_none_or(|since| !times.is_before(&seen, age_ms, since))
    };
    let data = history::content(&store)?;
    let lines = Lines::of(&data);
    let found = gone(cx, &store, &lines, now.store_ms);
    let listing = Listing::all(&store)?;
    let mut captures: HashMap<u32, Vec<Indexed>> = HashMap::new();
    for entry in listing.newest_first().filter_map(|number| listing.entry(number)) {
        captures.entry(entry.pid).or_default().push(entry);
    }
    let said = events::read(&store);
    let reports = crash_report::templates(cx, &store);
    let entries = found.iter().filter(is_wanted).map(|death| Entry {
        ended: death.how(),
        last_seen_ago_ms: now.store_ms.saturating_sub(death.last_ms),
        captures: captures.get(&death.pid).map(|own| of_death(&store, own, &death)).unwrap_or_default(),
        crash_report: crash_report::find(&reports, &death),
        verdicts: verdicts(&said, &death),
        death,
    });
    let view = View { schema: 1, deaths: entries.collect() };
    if view.deaths.is_empty() {
        output::note("no process that polled is gone without a goodbye, as far as the recorded polls reach");
    }
    Done::either(args.json, &view, text::render)
}

// The process must be the same, not only its pid. A capture that cannot be read says too little.
fn of_death(store: &Store, captures: &[Indexed], death: &Death) -> Vec<Id> {
    let during = death.first_ms..=death.last_ms + units::ms(LATE);
    let own = captures.iter().filter(|entry| entry.role == death.role && during.contains(&entry.store_ms));
    let is_of_it = |id: &Id| {
        let capture = store.capture(id);
        let same = |meta: &diagctl_store::meta::Meta| {
            (meta.start_time, meta.pid_ns) == (death.start_ticks, death.pid_ns) || meta.start_time == 0
        };
        capture.is_ok_and(|capture| same(capture.meta()))
    };
    own.map(|entry| entry.id).filter(is_of_it).collect()
}

// Events of an older version have the pid only.
fn verdicts(events: &[events::Event], death: &Death) -> Vec<Said> {
    let is_of_it = |event: &&events::Event| {
        let same = (event.start_ticks, event.pid_ns) == (death.start_ticks, death.pid_ns) || event.start_ticks == 0;
        event.pid == death.pid && same && !event.verdict.is_empty()
    };
    let said = |event: &events::Event| Said {
        at: event.at.clone(),
        verdict: event.verdict.clone(),
        reason: event.reason.clone(),
    };
    let mut own: Vec<Said> = events.iter().filter(is_of_it).map(said).collect();
    own.drain(..own.len().saturating_sub(VERDICTS));
    own
}

/// Finds the processes that are gone without a goodbye, the last one first.
pub(super) fn gone<'a>(cx: &Context, store: &Store, lines: &'a Lines<'a>, now_ms: u64) -> Deaths<'a> {
    Deaths::find(lines, is_alive(cx, store, now_ms))
}

/// Returns a function that tells from the last poll of a process if it is alive, as far as can be seen from here.
pub(super) fn is_alive(cx: &Context, store: &Store, now_ms: u64) -> impl Fn(&Head<'_>) -> bool {
    let here = cx.proc.pid_namespace();
    // Looking into another container reads all processes, so it is done for those only that may be there.
    let polling = std::cell::LazyCell::new(|| load_samples(store).processes);
    move |last: &Head<'_>| {
        let process = &last.process;
        let boot_id = process.boot_id.to_owned();
        let id = ProcessId { pid: process.pid, pid_ns: process.pid_ns, start_ticks: process.start_ticks, boot_id };
        if id.pid_ns != 0 && here != 0 && id.pid_ns != here && !polling.contains_key(&id) {
            return false;
        }
        match cx.proc.presence(&id) {
            Presence::Here(_) => true,
            Presence::Gone => false,
            // It cannot be seen from here. One that is silent for so long is taken to be gone.
            Presence::Elsewhere => now_ms.saturating_sub(last.at) < SILENT_MS,
        }
    }
}

/// Milliseconds without a poll after which a process of another container counts as gone.
const SILENT_MS: u64 = 600_000;

/// A capture is dated with its grant, which may be a little later than the last recorded poll.
const LATE: Duration = Duration::from_secs(60);
