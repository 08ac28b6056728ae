//! Applies retention and removes abandoned temporary files. The decisions are made in `retention`.

use crate::error::Result;
use crate::id::Id;
use crate::inventory::{self, Inventory};
use crate::retention::Pressure;
use crate::trash;
use crate::{Store, events};
use diagctl_fs::{self as fs, Entry};
use diagctl_observe::clock::Now;

/// The age of an abandoned temporary file, milliseconds. A write takes milliseconds.
const STALE_TEMPORARY_MS: u64 = 600_000;

/// Routine collection after a commit. Never deletes the capture that was just published.
pub fn collect(store: &Store, now: &Now, newest: Option<Id>) -> Result<u64> {
    trash::empty(store)?;
    shrink_quarantine(store)?;
    remove_stale_temporaries(store, now);
    let planned = Inventory::planned(store, now, 0, Pressure::Routine, newest)?;
    let Some((mut inventory, mut plan)) = planned else { return Ok(0) };
    let freed = inventory.apply(store, &mut plan)?;
    inventory.forget(&plan);
    inventory.note_oldest(store);
    Ok(freed)
}

/// Deletes the temporary files of writers that were killed before the rename.
pub fn remove_stale_temporaries(store: &Store, now: &Now) {
    for dir in [store.dir().clone(), store.path("requests")] {
        for entry in fs::children(&dir).filter(|entry| entry.name.to_string_lossy().starts_with(".tmp-")) {
            let temporary = dir.join(entry.name);
            let written_ms = temporary.stat().map(|stat| stat.st_mtime * 1000);
            // A time in the future means that the clock was set back since.
            let age_ms = written_ms.map(|written_ms| now.clock.wall_ms.abs_diff(written_ms));
            if age_ms.is_ok_and(|age_ms| age_ms > STALE_TEMPORARY_MS) {
                // A failure does no harm: the temporary stays.
                let _ = fs::remove_file(&temporary);
            }
        }
    }
}

/// Makes room for a report whose write has reached the cap or filled the disk.
pub fn make_room(store: &Store, now_ms: u64, inventory: &mut Inventory, bytes: u64) -> Result<()> {
    trash::empty(store)?;
    shrink_quarantine(store)?;
    // Other processes may have deleted captures, so that the last one of a kind is another one now.
    inventory.refresh(store)?;
    delete_to_fit(store, now_ms, inventory, bytes)
}

/// Deletes unprotected captures so that `bytes` fit, if that is possible. Returns the disk usage of the store afterwards, bytes.
pub fn admit(store: &Store, now: &Now, bytes: u64) -> Result<u64> {
    let reports_bytes = match Inventory::planned(store, now, bytes, Pressure::Admission, None)? {
        Some((mut inventory, mut plan)) => {
            inventory.apply(store, &mut plan)?;
            inventory.forget(&plan);
            inventory.reports_bytes()
        }
        None => inventory::reports_bytes(store)?,
    };
    Ok(reports_bytes.saturating_add(inventory::other_bytes(store)))
}

fn delete_to_fit(store: &Store, now_ms: u64, inventory: &mut Inventory, bytes: u64) -> Result<()> {
    let mut plan = inventory.plan(store, now_ms, bytes, Pressure::Admission, None)?;
    inventory.apply(store, &mut plan)?;
    inventory.forget(&plan);
    Ok(())
}

/// Deletes the oldest entries of the quarantine while it takes more than a tenth of the cap. The quarantine is for inspection,
/// not for storage.
pub fn shrink_quarantine(store: &Store) -> Result<()> {
    let dir = store.path("quarantine");
    let mut found: Vec<_> = fs::list(&dir)?
        .flatten()
        .filter_map(|Entry { name, .. }| {
            let spot = dir.join(&name);
            let stat = spot.stat().ok()?;
            Some(((stat.st_mtime, stat.st_mtime_nsec), name, fs::occupied_tree(&spot)))
        })
        .collect();
    found.sort();
    let mut total: u64 = found.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, name, bytes) in found {
        if total <= store.options().retention.max_use / 10 {
            break;
        }
        trash::clear_away(store, &dir.join(&name))?;
        let about =
            events::Event::about("deleted", name.to_string_lossy(), "the quarantine was over a tenth of max_use");
        events::record(store, &events::Event { cause: "quarantine".into(), ..about });
        total -= bytes;
    }
    Ok(())
}
