//! Moves things aside: into the trash to be deleted, or into the quarantine for inspection.

use diagctl_fs::{self as fs, Spot};

use crate::error::Result;
use crate::events::{self, Event};
use crate::id::Id;
use crate::{Store, catalog};

/// Deletes a published capture. `at` is the offset of its record in the catalog, if known. Readers that have its files open are
/// not affected.
pub fn discard_capture(store: &Store, id: Id, at: Option<u64>) -> Result<()> {
    let dir = store.report_dir(&id);
    let trashed = catalog::remove(store, id, at, || move_to_trash(store, &dir))?;
    trashed.map_or(Ok(()), |trashed| Ok(fs::remove(&trashed)?))
}

/// Deletes a directory that a command may have filled. Files that this user may not delete stay in the trash. They count against
/// the cap, but do not prevent captures.
pub fn clear_away(store: &Store, spot: &Spot) -> Result<()> {
    if let Some(trashed) = move_to_trash(store, spot)? {
        let _ = fs::remove(&trashed);
    }
    Ok(())
}

// Returns the new path, or `None` if the thing was already gone.
fn move_to_trash(store: &Store, spot: &Spot) -> Result<Option<Spot>> {
    let target = store.path("trash").join(fs::random_hex()?);
    match fs::rename_noreplace(spot, &target) {
        Err(e) if e.is_not_found() => Ok(None),
        other => Ok(other.map(|()| Some(target))?),
    }
}

/// Deletes the leftovers of killed deletions from the trash, as far as possible.
pub fn empty(store: &Store) -> Result<()> {
    let trash = store.path("trash");
    fs::require_dir(&trash, store.owner())?;
    for entry in fs::list(&trash)?.flatten() {
        let _ = fs::remove(&trash.join(entry.name));
    }
    Ok(())
}

/// Moves an untrusted file or directory into the quarantine. Its new name ends with a random number.
pub fn quarantine(store: &Store, spot: &Spot, reason: &str) -> Result<()> {
    // Length of the part of the name that is kept, so that the whole stays a valid name.
    const LONGEST: usize = 60;
    let name = spot.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let kept: String = name.chars().take(LONGEST).collect();
    let target = store.path("quarantine").join(format!("{kept}.{}", fs::random_hex()?));
    fs::rename_noreplace(spot, &target)?;
    events::record(store, &Event::quarantined(&name, reason));
    Ok(())
}
