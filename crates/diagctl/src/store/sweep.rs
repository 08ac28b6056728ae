//! Applying retention, and clearing away what dead dumpers left. What is decided is decided in `retention`.

use crate::clock::{Anchor, Now};
use crate::config::Config;
use crate::error::Failure;
use crate::fsio::{self, Entry};
use crate::state::{self, Found, State};
use crate::store::id::Id;
use crate::store::retention::Pressure;
use crate::store::stock::{self, Stock};
use crate::store::{Store, events, grant, requests};

/// A write takes milliseconds; a temporary this old has no writer any more.
const STALE_TEMPORARY_MS: u64 = 600_000;

/// Routine collection, after a commit: never the capture that was just published.
pub fn collect(config: &Config, store: &Store, now: &Now, newest: Option<&str>) -> Result<u64, Failure> {
    store.empty_trash()?;
    shrink_quarantine(config, store)?;
    remove_stale_temporaries(store, now);
    let Some(mut stock) = Stock::when_due(store, config, now, 0)? else { return Ok(0) };
    let mut plan = stock.plan(config, store, now, 0, Pressure::Routine, newest)?;
    let freed = stock.apply(store, &mut plan)?;
    stock.forget(&plan);
    stock.note_oldest(store);
    Ok(freed)
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
pub fn make_room(store: &Store, config: &Config, stock: &mut Stock, bytes: u64) -> Result<(), Failure> {
    let state = match state::load(store.dir())? {
        Found::State(state) => *state,
        Found::Nothing | Found::Damaged(_) => State::default(),
    };
    let boot_id = crate::proc::Proc::default().boot_id();
    let now = Anchor::place(state.clock.as_ref(), crate::clock::Reading::take(boot_id));
    store.empty_trash()?;
    shrink_quarantine(config, store)?;
    // Whoever deleted captures since may have left the last one of a kind.
    stock.refresh(store)?;
    make_fit(store, config, &now, stock, bytes)
}

/// Deletes what nothing protects so that so many bytes fit, if they can; returns what the store holds then.
pub fn admit(store: &Store, config: &Config, now: &Now, bytes: u64) -> Result<u64, Failure> {
    let reports_bytes = match Stock::when_due(store, config, now, bytes)? {
        Some(mut stock) => {
            make_fit(store, config, now, &mut stock, bytes)?;
            stock.reports_bytes()
        }
        None => stock::reports_bytes(store)?,
    };
    Ok(reports_bytes.saturating_add(stock::other_bytes(store)))
}

fn make_fit(store: &Store, config: &Config, now: &Now, stock: &mut Stock, bytes: u64) -> Result<(), Failure> {
    let mut plan = stock.plan(config, store, now, bytes, Pressure::Admission, None)?;
    stock.apply(store, &mut plan)?;
    stock.forget(&plan);
    Ok(())
}

/// Clears away the staging directories of dumpers that died. Only for the holder of the lease: then every one of them is dead.
pub fn clear_staging(store: &Store) -> Result<(), Failure> {
    let staging = store.path("staging");
    for entry in fsio::list(&staging)?.flatten() {
        let id = entry.name.to_string_lossy().into_owned();
        if Id::parse(&id).is_none() {
            continue;
        }
        let staged = staging.join(&id);
        let request = grant::read(&staged).ok().and_then(|grant| grant.meta.request);
        store.clear_away(&staged)?;
        let why = "its dumper ended without publishing it";
        events::record(store, &events::Event::about("cleaned", &id, why));
        if let Some(request) = request {
            requests::give_back(store, &request, &format!("capture {id}: {why}"))?;
        }
    }
    store.empty_trash()
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
        store.clear_away(&dir.join(&name))?;
        events::record(
            store,
            &events::Event::about("deleted", &name.to_string_lossy(), "the quarantine was over a tenth of max_use"),
        );
        total -= bytes;
    }
    Ok(())
}
