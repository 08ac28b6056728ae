//! Writes the catalog, and keeps it in step with `reports/` and the index.

use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::format::{HEADER, Header, NewRecord, Stamp};
use super::{CHUNK, Catalog};
use crate::error::Result;
use crate::id::Id;
use crate::layout::CATALOG;
use crate::{Access, Store};
use diagctl_fs::{self as fs, Durability, LockFile};

/// A change of a capture's markers.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    /// It was pinned or unpinned.
    Pinned(Id, bool),
    /// The remote has confirmed it.
    Shipped(Id),
}

/// Writes a new catalog. The stamps of `reports/` and of the index must be taken before these are read, so that any later change
/// is noticed.
pub fn write(
    store: &Store,
    records: impl Iterator<Item = NewRecord>,
    strange_bytes: u64,
    (reports, index): (Stamp, Stamp),
    checked_ms: i64,
) -> Result<()> {
    let _guard = store.lock()?;
    let mut header = Header { reports, index, ..Header::default() };
    header.checked_ms = u64::try_from(checked_ms).unwrap_or(0);
    header.end = HEADER as u64;
    header.first = header.end;
    header.totals.strange_bytes = strange_bytes;
    header.totals.oldest_ms = u64::MAX;
    Ok(fs::write_atomic_with(&store.path(CATALOG), Durability::Volatile, |file| {
        let mut out = BufWriter::with_capacity(CHUNK, &*file);
        out.write_all(&[0; HEADER])?;
        for record in records {
            let bytes = record.encode();
            out.write_all(&bytes)?;
            header.end += bytes.len() as u64;
            let totals = &mut header.totals;
            if record.damaged {
                totals.damaged += 1;
                continue;
            }
            totals.captures += 1;
            totals.bytes = totals.bytes.saturating_add(record.disk_bytes);
            header.last_sequence = header.last_sequence.max(record.sequence);
            if !record.pinned {
                totals.oldest_ms = totals.oldest_ms.min(record.store_ms);
            }
        }
        out.flush()?;
        drop(out);
        file.write_all_at(&header.encode(), 0)
    })?)
}

// Changes `reports/` under the lock. If the catalog was valid before, updates it so that it stays valid. A failed update, or a
// lock that cannot be taken, does not fail the change: the catalog is then invalid and ignored.
fn keep_in_step<T>(
    store: &Store,
    act: impl FnOnce() -> Result<T>,
    edit: impl FnOnce(&mut Catalog) -> Option<()>,
) -> Result<T> {
    let guard = store.lock().ok();
    let catalog = guard.as_ref().and_then(|_: &LockFile| Catalog::current_to_write(store));
    let done = act()?;
    if let Some(mut catalog) = catalog
        && edit(&mut catalog).is_some()
    {
        catalog.header.reports = Stamp::of_reports(store);
        let _ = catalog.save();
    }
    Ok(done)
}

/// Publishes a capture by calling `act`.
pub fn publish<T>(store: &Store, new: &NewRecord, act: impl FnOnce() -> Result<T>) -> Result<T> {
    keep_in_step(store, act, |catalog| catalog.add(new))
}

/// Removes a capture from `reports/` by calling `act`. `at` is the offset of its record, if known.
pub fn remove<T>(store: &Store, id: Id, at: Option<u64>, act: impl FnOnce() -> Result<T>) -> Result<T> {
    keep_in_step(store, act, |catalog| catalog.drop(id, at))
}

/// Appends to the index by calling `act`, under the lock that the caller holds. `mark` is the change of a capture's
/// markers, if there is one.
pub fn with_index<T>(store: &Store, mark: Option<Mark>, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let catalog = Catalog::open(store, Access::Write).filter(|catalog| catalog.knows_index(store));
    let done = act()?;
    if let Some(mut catalog) = catalog {
        let marked = match mark {
            None => Some(()),
            Some(Mark::Pinned(id, pinned)) => catalog.set_pinned(id, pinned),
            Some(Mark::Shipped(id)) => catalog.set_shipped(id),
        };
        if marked.is_some() {
            catalog.header.index = Stamp::of_index(store);
            let _ = catalog.save();
        }
    }
    Ok(done)
}

/// Records the time of the oldest unpinned capture, found by a look at all captures.
pub fn set_oldest(store: &Store, oldest_ms: u64) {
    if let Ok(_guard) = store.lock()
        && let Some(mut catalog) = Catalog::current_to_write(store)
    {
        catalog.header.totals.oldest_ms = oldest_ms;
        let _ = catalog.save();
    }
}
