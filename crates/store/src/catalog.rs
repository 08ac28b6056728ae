//! `catalog.bin`: the captures of the store, packed, with running totals. Retention, `status` and `list -n` read a few KiB of it,
//! even in a store of a hundred thousand captures.
//!
//! The catalog is a cache like the index, with a stricter test of validity. The header records the state of `reports/` and
//! `index.jsonl` when it was written (inode, size, times, number of links). If either has changed, readers ignore the catalog and
//! read the directory, and [`Inventory::check`](crate::inventory::Inventory::check) writes a new catalog. When diagctl itself
//! publishes, deletes or pins a capture, it updates the catalog in place under `state.lock`. If the process is killed halfway,
//! the catalog is no longer valid.
//!
//! ```text
//! header   words of 8 bytes, little-endian; the last is the CRC-32 of the others
//! records  mostly oldest first:  length u32 | check u64 | flags u8 | id | sequence u64 | store_ms u64 | disk_bytes u64 |
//!                         for each kind of report: bytes u64 | length u8 | name |  length u32 once more, to read backwards
//! ```

mod change;
mod format;

use std::fs::File;
use std::os::unix::fs::FileExt;

pub use change::{Mark, publish, remove, set_oldest, with_index, write};
use format::{GONE, HEAD, HEADER, Header, PINNED, SHIPPED, TAIL, check_of, decode, length_at};
pub use format::{NewRecord, Record, Stamp, Totals};

use crate::id::Id;
use crate::layout::CATALOG;
use crate::{Access, Store};
use diagctl_fs as fs;

/// Bytes per read.
const CHUNK: usize = 256 << 10;

/// Bytes per read where a few records are enough.
const SMALL_CHUNK: usize = 16 << 10;

/// An open catalog.
#[derive(Debug)]
pub struct Catalog {
    file: File,
    header: Header,
}

impl Catalog {
    /// Opens the catalog without comparing it with `reports/`. Returns `None` if it is missing, damaged or of another version.
    fn open(store: &Store, to: Access) -> Option<Self> {
        let file = fs::open_existing(&store.path(CATALOG), to != Access::Read).ok()?;
        let mut bytes = [0; HEADER];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let header = Header::decode(&bytes)?;
        (header.end <= file.metadata().ok()?.len()).then_some(Self { file, header })
    }

    /// Opens the catalog if it agrees with `reports/` and the index.
    pub fn current(store: &Store) -> Option<Self> {
        Self::open(store, Access::Read).filter(|catalog| catalog.is_current(store))
    }

    /// Opens the catalog if it agrees with the index. Captures may have been added or deleted since.
    pub fn of_index(store: &Store) -> Option<Self> {
        Self::open(store, Access::Read).filter(|catalog| catalog.knows_index(store))
    }

    fn is_current(&self, store: &Store) -> bool {
        self.header.reports == Stamp::of_reports(store) && self.knows_index(store)
    }

    fn knows_index(&self, store: &Store) -> bool {
        self.header.index == Stamp::of_index(store)
    }

    // Opens the catalog for changes. The caller holds the lock.
    fn current_to_write(store: &Store) -> Option<Self> {
        Self::open(store, Access::Write).filter(|catalog| catalog.is_current(store))
    }

    /// Returns the totals over all captures.
    pub fn totals(&self) -> Totals {
        self.header.totals
    }

    /// Returns true if the directory itself was read within the last `within_ms` milliseconds of the wall clock.
    pub fn was_checked(&self, now_ms: i64, within_ms: u64) -> bool {
        u64::try_from(now_ms).is_ok_and(|now_ms| now_ms.abs_diff(self.header.checked_ms) <= within_ms)
    }

    /// Returns true if so many records or index lines are obsolete that the catalog and the index should be rewritten.
    pub fn is_stale(&self) -> bool {
        self.header.dead > self.header.totals.captures / 2 + 64
    }

    /// Reads all records, oldest first. Returns false if a record is damaged.
    pub fn each(&self, mut found: impl FnMut(u64, Record<'_>)) -> bool {
        self.scan(|at, bytes| {
            let (record, is_there) = decode(bytes)?;
            if is_there {
                found(at, record);
            }
            Some(true)
        })
        .is_some()
    }

    // Calls `found` for each record while it returns true. Returns `None` if the file is malformed, else whether the end was
    // reached.
    fn scan(&self, found: impl FnMut(u64, &[u8]) -> Option<bool>) -> Option<bool> {
        self.scan_from(HEADER as u64, CHUNK, found)
    }

    fn scan_from(&self, start: u64, chunk: usize, mut found: impl FnMut(u64, &[u8]) -> Option<bool>) -> Option<bool> {
        let mut buffer = Vec::new();
        let (mut at, mut from) = (start, 0);
        while at < self.header.end {
            let rest = &buffer[from..];
            match length_at(rest).filter(|length| *length <= rest.len()) {
                Some(length) => {
                    if !found(at, &rest[..length])? {
                        return Some(false);
                    }
                    (at, from) = (at + length as u64, from + length);
                }
                None if rest.len() >= 4 && length_at(rest).is_none() => return None,
                None => {
                    buffer.drain(..from);
                    from = 0;
                    let had = buffer.len();
                    let left = self.header.end.checked_sub(at + had as u64).filter(|left| *left > 0)?;
                    let more = chunk.max(length_at(&buffer).unwrap_or(0)).min(usize::try_from(left).ok()?);
                    buffer.resize(had + more, 0);
                    self.file.read_exact_at(&mut buffer[had..], at + had as u64).ok()?;
                }
            }
        }
        Some(true)
    }

    /// Reads records from the oldest on, while `found` returns true. Returns false if a record is damaged or the records are not
    /// in order.
    pub fn oldest_first(&self, mut found: impl FnMut(u64, Record<'_>) -> bool) -> bool {
        let read = self.scan_from(self.header.first, SMALL_CHUNK, |at, bytes| {
            let (record, is_there) = decode(bytes)?;
            Some(!is_there || found(at, record))
        });
        read.is_some() && !self.header.is_mixed
    }

    /// Reads records from the newest on, while `found` returns true. Returns false if a record is damaged.
    pub fn newest_first(&self, mut found: impl FnMut(Record<'_>) -> bool) -> bool {
        if self.header.is_mixed {
            return self.sorted(found).is_some();
        }
        self.scan_back(|bytes| {
            let (record, is_there) = decode(bytes)?;
            Some(!is_there || found(record))
        })
        .is_some()
    }

    fn sorted(&self, mut found: impl FnMut(Record<'_>) -> bool) -> Option<()> {
        let mut places = Vec::new();
        if !self.each(|at, record| places.push((record.sequence, record.id, at))) {
            return None;
        }
        places.sort_unstable();
        for (.., at) in places.into_iter().rev() {
            let bytes = self.read_record(at)?;
            if !found(decode(&bytes)?.0) {
                break;
            }
        }
        Some(())
    }

    fn read_record(&self, at: u64) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, at).ok()?;
        let mut bytes = vec![0; length_at(&length)?];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }

    fn scan_back(&self, mut found: impl FnMut(&[u8]) -> Option<bool>) -> Option<()> {
        // The buffer holds the file from `start` on. The part of it before `until` is still unread.
        let mut buffer: Vec<u8> = Vec::new();
        let mut start = self.header.end;
        let mut until = 0_usize;
        let mut chunk = SMALL_CHUNK;
        while until > 0 || start > HEADER as u64 {
            let length = until.checked_sub(TAIL).map(|tail| length_at(&buffer[tail..until]));
            match length {
                Some(None) => return None,
                Some(Some(length)) if length <= until => {
                    if !found(&buffer[until - length..until])? {
                        return Some(());
                    }
                    until -= length;
                }
                more => {
                    let wanted = chunk.max(more.flatten().unwrap_or(0)) as u64;
                    let wanted = wanted.min(start.checked_sub(HEADER as u64).filter(|left| *left > 0)?);
                    let mut earlier = vec![0; usize::try_from(wanted).ok()?];
                    start -= wanted;
                    self.file.read_exact_at(&mut earlier, start).ok()?;
                    earlier.extend_from_slice(&buffer[..until]);
                    until = earlier.len();
                    buffer = earlier;
                    chunk = CHUNK;
                }
            }
        }
        Some(())
    }

    fn find(&self, wanted: Id) -> Option<u64> {
        let mut place = None;
        self.scan(|at, bytes| {
            let (record, is_there) = decode(bytes)?;
            if is_there && record.id == wanted {
                place = Some(at);
            }
            Some(place.is_none())
        })?;
        place
    }

    fn add(&mut self, new: &NewRecord) -> Option<()> {
        let bytes = new.encode();
        self.file.write_all_at(&bytes, self.header.end).ok()?;
        let header = &mut self.header;
        header.end += bytes.len() as u64;
        header.is_mixed |= new.sequence <= header.last_sequence && header.totals.captures > 0;
        header.last_sequence = header.last_sequence.max(new.sequence);
        let totals = &mut header.totals;
        totals.oldest_ms = if totals.captures == 0 { new.store_ms } else { totals.oldest_ms.min(new.store_ms) };
        totals.captures += 1;
        totals.bytes = totals.bytes.saturating_add(new.disk_bytes);
        Some(())
    }

    // Sets or clears flags of a record.
    fn mark(&self, at: u64, id: Id, flags: u8, set: bool) -> Option<Marked> {
        let mut bytes = self.read_record(at)?;
        let (record, _) = decode(&bytes).filter(|(record, is_there)| record.id == id && *is_there)?;
        let marked = Marked { disk_bytes: record.disk_bytes, store_ms: record.store_ms, damaged: record.damaged };
        bytes[HEAD] = if set { bytes[HEAD] | flags } else { bytes[HEAD] & !flags };
        let check = check_of(&bytes[HEAD..]);
        bytes[4..HEAD].copy_from_slice(&check.to_le_bytes());
        self.file.write_all_at(&bytes[4..=HEAD], at + 4).ok()?;
        Some(marked)
    }

    fn drop(&mut self, id: Id, at: Option<u64>) -> Option<()> {
        let at = at.or_else(|| self.find(id))?;
        let gone = self.mark(at, id, GONE, true)?;
        let totals = &mut self.header.totals;
        if gone.damaged {
            totals.damaged = totals.damaged.checked_sub(1)?;
            totals.strange_bytes = totals.strange_bytes.checked_sub(gone.disk_bytes)?;
        } else {
            totals.captures = totals.captures.checked_sub(1)?;
            totals.bytes = totals.bytes.checked_sub(gone.disk_bytes)?;
        }
        self.header.dead += 1;
        if at == self.header.first {
            self.header.first = self.first_from(at)?;
        }
        Some(())
    }

    // Finds the first capture from `start` on that still exists. Records before that are never read again.
    fn first_from(&self, start: u64) -> Option<u64> {
        let mut first = self.header.end;
        self.scan_from(start, SMALL_CHUNK, |at, bytes| {
            let (_, is_there) = decode(bytes)?;
            if is_there {
                first = at;
            }
            Some(!is_there)
        })?;
        Some(first)
    }

    fn set_pinned(&mut self, id: Id, pinned: bool) -> Option<()> {
        let marked = self.mark(self.find(id)?, id, PINNED, pinned)?;
        if !pinned {
            self.header.totals.oldest_ms = self.header.totals.oldest_ms.min(marked.store_ms);
        }
        self.header.dead += 1;
        Some(())
    }

    fn set_shipped(&mut self, id: Id) -> Option<()> {
        self.mark(self.find(id)?, id, SHIPPED, true)?;
        self.header.dead += 1;
        Some(())
    }

    fn save(&self) -> Option<()> {
        self.file.write_all_at(&self.header.encode(), 0).ok()
    }
}

struct Marked {
    disk_bytes: u64,
    store_ms: u64,
    damaged: bool,
}

#[cfg(test)]
mod tests;
