//! The summaries of one process, with its memory at their times.

use diagctl_heapdump::summary::Summary;
use diagctl_heapdump::summary::trend::Point;
use diagctl_store::index::Entry;
use diagctl_store::{Capture, Id, Store};
use serde::Serialize;

use super::super::input::{self, SUMMARY};
use super::super::process;
use crate::cli::Failure;
use crate::cli::output;
use crate::history::{self, Recorded};

/// A recorded poll tells the memory of a summary that was taken this close to it, milliseconds.
const CLOSE_MS: u64 = 600_000;
/// The label of the application's release.
const RELEASE: &str = "release";

/// One summary.
#[derive(Clone, Serialize)]
pub(super) struct Taken {
    pub id: Id,
    pub at: String,
    pub store_ms: u64,
    /// The release of the application, if the capture has its label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Resident set at that time, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
}

// The captures of the process that has the newest, oldest first, and all others, newest first. A pid is used again, so the start counts.
pub(super) fn of_one_process(store: &Store, entries: Vec<Entry>) -> (Vec<Entry>, Vec<Entry>) {
    let start = |entry: &Entry| {
        let capture = store.capture(&entry.id).ok()?;
        let meta = capture.meta();
        Some((meta.pid, meta.pid_ns, meta.start_time, meta.boot_id.clone()))
    };
    let Some(process) = entries.iter().find_map(start) else { return (Vec::new(), entries) };
    let is_own = |entry: &Entry| entry.pid == process.0 && start(entry).as_ref() == Some(&process);
    let (mut own, others): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(is_own);
    own.reverse();
    (own, others)
}

// A summary that cannot be read is left out.
pub(super) fn read(store: &Store, entries: &[Entry]) -> Result<(Vec<Taken>, Vec<Point>), Failure> {
    let one = |capture: Capture, reader| -> Result<(Capture, Summary), Failure> {
        let summary = input::summary(capture.meta().id.as_ref(), reader)?;
        Ok((capture, summary))
    };
    let open = |entry: &Entry| -> diagctl_store::Result<_> {
        let capture = store.capture(&entry.id)?;
        let reader = capture.reader(SUMMARY)?;
        Ok((capture, reader))
    };
    let (mut all, mut points) = (Vec::new(), Vec::new());
    for entry in entries {
        let opened = match open(entry) {
            // All others are most likely encrypted, too.
            Err(locked) if locked.is_locked() && all.is_empty() => return Err(locked.into()),
            other => other.map_err(Failure::from),
        };
        match opened.and_then(|(capture, reader)| one(capture, reader)) {
            Ok((capture, summary)) if summary.complete => {
                all.push(taken(entry, &capture));
                points.push(Point { at_ms: entry.store_ms, summary });
            }
            Ok(_) => output::note(&format!("skipped {}: its summary is of a part of the heap", entry.id)),
            Err(why) => output::note(&format!("skipped {}: {}", entry.id, why.message)),
        }
    }
    Ok((all, points))
}

/// Describes the capture of a summary or dump.
pub(super) fn taken(entry: &Entry, capture: &Capture) -> Taken {
    Taken {
        id: entry.id,
        at: entry.created.clone(),
        store_ms: entry.store_ms,
        release: capture.meta().labels.get(RELEASE).cloned(),
        rss: process::rss_of(capture),
    }
}

/// Fills in the memory from the recorded polls where the capture has none.
pub(super) fn with_memory(store: &Store, mut taken: Vec<Taken>, pid: u32) -> Result<Vec<Taken>, Failure> {
    let history = history::read(store)?;
    let polls: Vec<&Recorded> = history.iter().filter(|poll| poll.pid == pid).collect();
    for one in taken.iter_mut().filter(|one| one.rss.is_none()) {
        let nearest = polls.iter().min_by_key(|poll| poll.at.abs_diff(one.store_ms));
        let nearest = nearest.filter(|poll| poll.at.abs_diff(one.store_ms) <= CLOSE_MS);
        one.rss = nearest.and_then(|poll| poll.memory.get("rss").copied());
    }
    Ok(taken)
}
