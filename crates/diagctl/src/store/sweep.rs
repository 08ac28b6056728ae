//! Applying retention, and clearing away what dead dumpers left. What is decided is decided in `retention`.

use std::collections::BTreeSet;

use crate::clock::{Anchor, Now};
use crate::config::Config;
use crate::error::Failure;
use crate::fsio::{self, Entry};
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
    for dir in [store.dir().clone(), store.path("requests")] {
        for entry in fsio::children(&dir).filter(|entry| entry.name.to_string_lossy().starts_with(".tmp-")) {
            let temporary = dir.join(entry.name);
            let written_ms = temporary.stat().map(|stat| stat.st_mtime * 1000);
            // One from the future was written before the clock was set back.
            let age_ms = written_ms.map(|written_ms| now.clock.wall_ms.abs_diff(written_ms));
            if age_ms.is_ok_and(|age_ms| age_ms > STALE_TEMPORARY_MS) {
                // It is in nobody's way if it stays.
                let _ = fsio::remove_file(&temporary);
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
    for entry in fsio::list(&staging)?.flatten() {
        let id = entry.name.to_string_lossy().into_owned();
        if !index::is_id(&id) {
            continue;
        }
        let staged = staging.join(&id);
        let request = grant::read(&staged).ok().and_then(|grant| grant.meta.request);
        store.discard(&staged)?;
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
    let reports = store.path("reports");
    let of = |entry: Entry| {
        let known = entry.name.to_str().and_then(|id| sizes.get(id).copied());
        known.unwrap_or_else(|| fsio::occupied_tree(&reports.join(entry.name)))
    };
    fsio::children(&reports).map(of).sum::<u64>() + bookkeeping(store)
}

// Everything but the captures, whose sizes the index has. Captures that cannot be read, and whatever else somebody put into
// `reports/`, take room all the same.
fn outside(store: &Store, index: &index::Index) -> u64 {
    let known: BTreeSet<&str> = index.entries.iter().map(|entry| entry.id.as_str()).collect();
    let reports = store.path("reports");
    let strange =
        fsio::children(&reports).filter(|entry| !entry.name.to_str().is_some_and(|name| known.contains(name)));
    strange.map(|entry| fsio::occupied_tree(&reports.join(entry.name))).sum::<u64>() + bookkeeping(store)
}

fn bookkeeping(store: &Store) -> u64 {
    let others = fsio::children(store.dir()).filter(|entry| entry.name != "reports");
    others.map(|entry| fsio::occupied_tree(&store.dir().join(entry.name))).sum()
}

/// The quarantine is for looking at, not for keeping: it may take a tenth of the cap, the oldest goes first.
pub fn shrink_quarantine(config: &Config, store: &Store) -> Result<(), Failure> {
    let dir = store.path("quarantine");
    let mut found: Vec<_> = fsio::list(&dir)?
        .flatten()
        .filter_map(|Entry { name, .. }| {
            let spot = dir.join(&name);
            let stat = spot.stat().ok()?;
            Some(((stat.st_mtime, stat.st_mtime_nsec), name, fsio::occupied_tree(&spot)))
        })
        .collect();
    found.sort();
    let mut total: u64 = found.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, name, bytes) in found {
        if total <= config.retention.max_use / 10 {
            break;
        }
        store.discard(&dir.join(&name))?;
        events::record(
            store,
            &events::Event::about("deleted", &name.to_string_lossy(), "the quarantine was over a tenth of max_use"),
        );
        total -= bytes;
    }
    Ok(())
}
