//! Moving things out of the way: into the trash to be unlinked, or into the quarantine to be looked at.

use diagctl_fs::{self as fs, Spot};

use crate::error::Result;
use crate::events::{self, Event};
use crate::id::Id;
use crate::{Store, catalog};

/// Deletes a published capture. `at` is the place of its record in the catalog, if that is known. Readers that have its files open go
/// on reading.
pub fn discard_capture(store: &Store, id: &str, at: Option<u64>) -> Result<()> {
    let dir = store.report_dir(id);
    let thrown = match Id::parse(id) {
        Some(id) => catalog::remove(store, id, at, || throw_away(store, &dir))?,
        None => throw_away(store, &dir)?,
    };
    thrown.map_or(Ok(()), |thrown| Ok(fs::remove(&thrown)?))
}

/// Deletes what a command may have filled. What this user may not delete stays in the trash, where it counts against the cap, and
/// stops no capture.
pub fn clear_away(store: &Store, spot: &Spot) -> Result<()> {
    if let Some(thrown) = throw_away(store, spot)? {
        let _ = fs::remove(&thrown);
    }
    Ok(())
}

// Returns the new place; nothing if the thing was gone already.
fn throw_away(store: &Store, spot: &Spot) -> Result<Option<Spot>> {
    let target = store.path("trash").join(fs::random_hex()?);
    match fs::rename_noreplace(spot, &target) {
        Err(e) if e.is_not_found() => Ok(None),
        other => Ok(other.map(|()| Some(target))?),
    }
}

/// Unlinks what earlier deletions left in the trash when they were killed, as far as it can be unlinked.
pub fn empty(store: &Store) -> Result<()> {
    let trash = store.path("trash");
    fs::require_dir(&trash, store.owner())?;
    for entry in fs::list(&trash)?.flatten() {
        let _ = fs::remove(&trash.join(entry.name));
    }
    Ok(())
}

/// Moves something that is not trusted into the quarantine, under its name and a random number.
pub fn quarantine(store: &Store, spot: &Spot, reason: &str) -> Result<()> {
    // The longest part of a name that is kept: with the number it is still a name.
    const LONGEST: usize = 60;
    let name = spot.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let kept: String = name.chars().take(LONGEST).collect();
    let target = store.path("quarantine").join(format!("{kept}.{}", fs::random_hex()?));
    fs::rename_noreplace(spot, &target)?;
    events::record(store, &Event::quarantined(&name, reason));
    Ok(())
}
