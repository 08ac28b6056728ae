//! `diagctl deaths`: lists processes that polled and are gone.

mod crash_report;
mod recent;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::output::{self, Done};
use super::times::{self, Moment, Times};
use super::{Context, Failure};
use crate::clock;
use crate::deaths::{self, Death};
use crate::history::{self, Recorded};
use crate::units;
use diagctl_observe::{Presence, ProcessId};
use diagctl_store::Store;
use diagctl_store::index::Listing;
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
    let found = gone(cx, &store, now.store_ms)?;
    let listing = Listing::all(&store)?;
    let captures: Vec<_> = listing.newest_first().filter_map(|number| listing.entry(number)).collect();
    let said = events::read(&store);
    let reports = crash_report::templates(cx, &store);
    let entries = found.into_iter().filter(is_wanted).map(|death| {
        // A pid is used again, but not while its process lives.
        let own = captures.iter().filter(|entry| entry.pid == death.pid && entry.role == death.role);
        let during = own.filter(|entry| (death.first_ms..=death.last_ms + units::ms(LATE)).contains(&entry.store_ms));
        let verdicts = said.iter().filter(|event| event.pid == death.pid && !event.verdict.is_empty());
        let mut verdicts: Vec<Said> =
            verdicts.map(|e| Said { at: e.at.clone(), verdict: e.verdict.clone(), reason: e.reason.clone() }).collect();
        verdicts.drain(..verdicts.len().saturating_sub(VERDICTS));
        Entry {
            ended: death.how(),
            last_seen_ago_ms: now.store_ms.saturating_sub(death.last_ms),
            captures: during.map(|entry| entry.id).collect(),
            crash_report: crash_report::find(&reports, &death),
            verdicts,
            death,
        }
    });
    let view = View { schema: 1, deaths: entries.collect() };
    if view.deaths.is_empty() {
        output::note("no process that polled is gone without a goodbye, as far as the recorded polls reach");
    }
    Done::either(args.json, &view, text::render)
}

/// Finds the processes that are gone without a goodbye, the last one first.
pub(super) fn gone(cx: &Context, store: &Store, now_ms: u64) -> Result<Vec<Death>, Failure> {
    let is_alive = |last: &Recorded| {
        let boot_id = String::new();
        let id = ProcessId { pid: last.pid, pid_ns: last.pid_ns, start_ticks: last.start_ticks, boot_id };
        match cx.proc.presence(&id) {
            Presence::Here(_) => true,
            Presence::Gone => false,
            // It cannot be seen from here. One that is silent for so long is taken to be gone.
            Presence::Elsewhere => now_ms.saturating_sub(last.at) < SILENT_MS,
        }
    };
    let (samples, notes) = history::read_with_ends(store)?;
    Ok(deaths::find(&samples, &notes, is_alive))
}

/// Milliseconds without a poll after which a process of another container counts as gone.
const SILENT_MS: u64 = 600_000;

/// A capture is dated with its grant, which may be a little later than the last recorded poll.
const LATE: Duration = Duration::from_secs(60);
