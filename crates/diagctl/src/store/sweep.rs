//! Applying retention, and clearing away what dead dumpers left. What is decided is decided in `retention`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::clock::{Anchor, Now};
use crate::config::Config;
use crate::error::Failure;
use crate::fsio;
use crate::state::{self, Found, State};
use crate::store::retention::{self, Policy, Pressure, Usage, Verdict};
use crate::store::{Store, events, grant, index, meta, requests};

/// A write takes milliseconds; a temporary this old has no writer any more.
const STALE_TEMPORARY_MS: u64 = 600_000;

/// What retention says of every capture, now.
pub fn plan_now(
    config: &Config,
    store: &Store,
    now: &Now,
    incoming: u64,
    pressure: Pressure,
    newest: Option<&str>,
) -> Result<Vec<Verdict>, Failure> {
    let mut index = index::load(store, true)?;
    let (free_disk, total_disk) = store.space()?;
    let keep = &config.retention;
    let policy = Policy {
        max_use: keep.max_use,
        keep_free: keep.keep_free.of(total_disk),
        max_age_ms: crate::units::ms(keep.max_age),
        keep_last: keep.keep_last,
        max_captures: keep.max_captures,
    };
    let usage = Usage { other_bytes: outside(store, &index), free_disk, incoming };
    loop {
        let plan = retention::plan(&index.entries, &policy, &usage, pressure, now.store_ms, newest);
        if !correct(store, &plan, &mut index.entries) {
            return Ok(plan);
        }
    }
}

// The index may be behind, or damaged in a way that still can be read: before a capture is given up, its own record and its own
// marker say how old it is and whether it is pinned. One that cannot be read any more is left to people.
fn correct(store: &Store, plan: &[Verdict], entries: &mut Vec<index::Entry>) -> bool {
    let victims: BTreeSet<&str> =
        plan.iter().filter(|verdict| !verdict.keep).map(|verdict| verdict.id.as_str()).collect();
    let mut corrected = false;
    entries.retain_mut(|entry| {
        if !victims.contains(entry.id.as_str()) {
            return true;
        }
        let truth = meta::read(&store.report_dir(&entry.id)).map(|meta| index::Entry::of(store, &meta));
        corrected |= truth.as_ref().ok() != Some(entry);
        truth.map(|truth| *entry = truth).is_ok()
    });
    corrected
}

/// Deletes what a plan gives up; returns the bytes that were freed.
pub fn apply(store: &Store, plan: &[Verdict]) -> Result<u64, Failure> {
    let mut freed = 0;
    for verdict in plan.iter().filter(|verdict| !verdict.keep) {
        store.discard(&store.report_dir(&verdict.id))?;
        events::record(store, &events::Event::about("deleted", &verdict.id, &verdict.reasons.join("; ")));
        freed += verdict.disk_bytes;
    }
    if freed > 0 {
        // The index drops what is gone when it is next loaded; doing it here keeps idle commands from having to.
        index::load(store, true)?;
    }
    Ok(freed)
}

/// Routine collection, after a commit: never the capture that was just published.
pub fn collect(config: &Config, store: &Store, now: &Now, newest: Option<&str>) -> Result<u64, Failure> {
    store.empty_trash()?;
    shrink_quarantine(config, store)?;
    remove_stale_temporaries(store, now);
    apply(store, &plan_now(config, store, now, 0, Pressure::Routine, newest)?)
}

/// Deletes the temporaries of writers that were killed before they could rename them.
pub fn remove_stale_temporaries(store: &Store, now: &Now) {
    for dir in [store.dir().to_path_buf(), store.path("requests")] {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-")) {
            let written_ms = entry.metadata().map(|meta| std::os::unix::fs::MetadataExt::mtime(&meta) * 1000);
            // One from the future was written before the clock was set back.
            let age_ms = written_ms.map(|written_ms| now.clock.wall_ms.abs_diff(written_ms));
            if age_ms.is_ok_and(|age_ms| age_ms > STALE_TEMPORARY_MS) {
                // It is in nobody's way if it stays.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Makes room for a report that is being written and has reached the cap or the end of the disk.
pub fn make_room(store: &Store, config: &Config, bytes: u64) -> Result<u64, Failure> {
    let state = match state::load(store.dir())? {
        Found::State(state) => *state,
        Found::Nothing | Found::Damaged(_) => State::default(),
    };
    let boot_id = crate::proc::Proc::default().boot_id();
    let now = Anchor::place(state.clock.as_ref(), crate::clock::Reading::take(boot_id));
    store.empty_trash()?;
    shrink_quarantine(config, store)?;
    apply(store, &plan_now(config, store, &now, bytes, Pressure::Admission, None)?)
}

/// Clears away the staging directories of dumpers that died. Only for the holder of the lease: then every one of them is dead.
pub fn clear_staging(store: &Store) -> Result<(), Failure> {
    let staging = store.path("staging");
    let entries = fs::read_dir(&staging).map_err(|e| Failure::io("read", &staging, e))?;
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !index::is_id(&id) {
            continue;
        }
        let request = grant::read(&entry.path()).ok().and_then(|grant| grant.meta.request);
        store.discard(&entry.path())?;
        let why = "its dumper ended without publishing it";
        events::record(store, &events::Event::about("cleaned", &id, why));
        if let Some(request) = request {
            requests::give_back(store, &request, &format!("capture {id}: {why}"))?;
        }
    }
    store.empty_trash()
}

/// What the whole store occupies, in whole blocks. For `put`, which may not need much memory itself: of each capture no more is
/// kept than its size, which is measured where the index does not have it.
pub fn used(store: &Store) -> u64 {
    let sizes = index::sizes(store);
    let of = |entry: fs::DirEntry| {
        let known = entry.file_name().to_str().and_then(|id| sizes.get(id).copied());
        known.unwrap_or_else(|| fsio::occupied_tree(&entry.path()))
    };
    children(&store.path("reports")).map(of).sum::<u64>() + bookkeeping(store)
}

// Everything but the captures, whose sizes the index has. Captures that cannot be read, and whatever else somebody put into
// `reports/`, take room all the same.
fn outside(store: &Store, index: &index::Index) -> u64 {
    let known: BTreeSet<&str> = index.entries.iter().map(|entry| entry.id.as_str()).collect();
    let strange = children(&store.path("reports"))
        .filter(|entry| !entry.file_name().to_str().is_some_and(|name| known.contains(name)));
    strange.map(|entry| fsio::occupied_tree(&entry.path())).sum::<u64>() + bookkeeping(store)
}

fn bookkeeping(store: &Store) -> u64 {
    let others = children(store.dir()).filter(|entry| entry.file_name() != "reports");
    others.map(|entry| fsio::occupied_tree(&entry.path())).sum()
}

fn children(dir: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten()
}

/// The quarantine is for looking at, not for keeping: it may take a tenth of the cap, the oldest goes first.
pub fn shrink_quarantine(config: &Config, store: &Store) -> Result<(), Failure> {
    let dir = store.path("quarantine");
    let entries = fs::read_dir(&dir).map_err(|e| Failure::io("read", &dir, e))?;
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            Some((entry.metadata().ok()?.modified().ok()?, entry.path(), fsio::occupied_tree(&entry.path())))
        })
        .collect();
    found.sort();
    let mut total: u64 = found.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, path, bytes) in found {
        if total <= config.retention.max_use / 10 {
            break;
        }
        store.discard(&path)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        events::record(store, &events::Event::about("deleted", &name, "the quarantine was over a tenth of max_use"));
        total -= bytes;
    }
    Ok(())
}
