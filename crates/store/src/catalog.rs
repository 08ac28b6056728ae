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

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::Id;
use diagctl_fs::checksum;
use diagctl_fs::{self as fs, Durability, LockFile, Spot};

use crate::layout::{CATALOG, INDEX};
use crate::meta::Meta;
use crate::{Access, Store};

const MAGIC: u64 = u64::from_le_bytes(*b"diagcat1");
const HEADER: usize = 23 * 8;
const HEAD: usize = 4 + 8;
const FIXED: usize = HEAD + 1 + 28 + 3 * 8;
const TAIL: usize = 4;

/// Maximum size of a record, bytes. A record is derived from a `meta.json`, which is at most 4 MiB.
const MAX_RECORD: usize = 8 << 20;

/// Bytes per read.
const CHUNK: usize = 256 << 10;

/// Bytes per read where a few records are enough.
const SMALL_CHUNK: usize = 16 << 10;

const GONE: u8 = 1;
const PINNED: u8 = 2;
const DAMAGED: u8 = 4;

/// The totals over all captures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of readable captures.
    pub captures: u64,
    /// Disk usage of the readable captures, bytes.
    pub bytes: u64,
    /// Number of captures that cannot be read.
    pub damaged: u64,
    /// Disk usage of everything else in `reports/`: damaged captures and entries that are not captures, bytes.
    pub strange_bytes: u64,
    /// A lower bound on the time of the oldest unpinned capture, on the store's time line.
    pub oldest_ms: u64,
}

impl Totals {
    /// Disk usage of `reports/`, bytes.
    pub fn reports_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.strange_bytes)
    }
}

/// The observed state of a file or directory: inode, size, links and times of change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp([u64; 5]);

impl Stamp {
    /// The current state. A missing file has a stamp of its own, all zeros.
    pub fn of(spot: &Spot) -> Self {
        let Ok(stat) = spot.stat() else { return Self::default() };
        let time = |seconds, rest| word(seconds).wrapping_mul(1_000_000_000).wrapping_add(word(rest));
        Self([
            word(stat.st_ino),
            word(stat.st_size),
            word(stat.st_nlink),
            time(stat.st_mtime, stat.st_mtime_nsec),
            time(stat.st_ctime, stat.st_ctime_nsec),
        ])
    }

    /// Time of the last change of the content, milliseconds of the wall clock.
    pub fn modified_ms(&self) -> u64 {
        self.0[3] / 1_000_000
    }

    /// The stamp of `reports/`.
    pub fn of_reports(store: &Store) -> Self {
        Self::of(&store.path("reports"))
    }

    /// The stamp of the index.
    pub fn of_index(store: &Store) -> Self {
        Self::of(&store.path(INDEX))
    }
}

// The types of the fields of a stat differ between architectures.
fn word(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    /// Offset of the end of the records.
    end: u64,
    totals: Totals,
    /// Number of obsolete records and obsolete index lines.
    dead: u64,
    /// Wall-clock time of the last full read of the directory, milliseconds.
    checked_ms: u64,
    /// The highest sequence number.
    last_sequence: u64,
    /// Set if the records are not in order. A capture copied from another store may have a higher number than captures taken
    /// later.
    is_mixed: bool,
    /// Offset of the first capture that still exists, or of the end.
    first: u64,
    reports: Stamp,
    index: Stamp,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let t = &self.totals;
        let counts = [MAGIC, self.end, t.captures, t.bytes, t.damaged, t.strange_bytes, t.oldest_ms];
        let words = counts.into_iter().chain([
            self.dead,
            self.checked_ms,
            self.last_sequence,
            u64::from(self.is_mixed),
            self.first,
        ]);
        let words = words.chain(self.reports.0).chain(self.index.0);
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let check = u64::from(checksum::crc(&bytes));
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let words: Vec<u64> =
            bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).collect();
        let (body, check) = bytes.split_at_checked(HEADER - 8)?;
        let [
            MAGIC,
            end,
            captures,
            sum,
            damaged,
            strange_bytes,
            oldest_ms,
            dead,
            checked_ms,
            last_sequence,
            mixed,
            first,
            stamps @ ..,
            _,
        ] = words.as_slice()
        else {
            return None;
        };
        let (reports, index) = stamps.split_at_checked(5)?;
        let header = Self {
            end: *end,
            totals: Totals {
                captures: *captures,
                bytes: *sum,
                damaged: *damaged,
                strange_bytes: *strange_bytes,
                oldest_ms: *oldest_ms,
            },
            dead: *dead,
            checked_ms: *checked_ms,
            last_sequence: *last_sequence,
            is_mixed: *mixed != 0,
            first: *first,
            reports: Stamp(reports.try_into().ok()?),
            index: Stamp(index.try_into().ok()?),
        };
        (check == u64::from(checksum::crc(body)).to_le_bytes()).then_some(header)
    }
}

/// A capture in the catalog.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The capture's id.
    pub id: Id,
    /// The sequence number, which orders captures.
    pub sequence: u64,
    /// Time of the capture on the store's time line, milliseconds.
    pub store_ms: u64,
    /// Disk usage, bytes.
    pub disk_bytes: u64,
    /// Set if the capture is pinned.
    pub pinned: bool,
    /// Set if its `meta.json` cannot be read. Then only the id and the size are known.
    pub damaged: bool,
    kinds: &'a [u8],
}

impl<'a> Record<'a> {
    /// Returns the kinds of report that the capture has data of, each with its stored bytes.
    pub fn kinds(&self) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        let mut rest = self.kinds;
        std::iter::from_fn(move || {
            let (bytes, after) = rest.split_first_chunk::<8>()?;
            let (length, after) = after.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            Some((std::str::from_utf8(name).ok()?, u64::from_le_bytes(*bytes)))
        })
    }
}

/// A record to be added.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The capture's id.
    pub id: Id,
    /// The sequence number, which orders captures.
    pub sequence: u64,
    /// Time of the capture on the store's time line, milliseconds.
    pub store_ms: u64,
    /// Disk usage, bytes.
    pub disk_bytes: u64,
    /// Set if the capture is pinned.
    pub pinned: bool,
    /// Set if its `meta.json` cannot be read.
    pub damaged: bool,
    /// The kinds of report that the capture has data of, each with its stored bytes.
    pub kinds: Vec<(String, u64)>,
}

impl NewRecord {
    /// Creates the record of a capture that is published or about to be.
    pub fn of(meta: &Meta, id: Id, disk_bytes: u64) -> Self {
        let mut kinds = BTreeMap::<&str, u64>::new();
        for report in meta.reports.iter().filter(|report| report.error.is_none() || report.stored_bytes > 0) {
            let bytes = kinds.entry(&report.name).or_default();
            *bytes = bytes.saturating_add(report.stored_bytes);
        }
        Self {
            id,
            sequence: meta.sequence,
            store_ms: meta.store_ms,
            disk_bytes,
            pinned: false,
            damaged: false,
            kinds: kinds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
        }
    }

    /// Creates the record of a capture that cannot be read.
    pub fn damaged(id: Id, disk_bytes: u64) -> Self {
        Self { id, sequence: 0, store_ms: 0, disk_bytes, pinned: false, damaged: true, kinds: Vec::new() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes.push(if self.pinned { PINNED } else { 0 } | if self.damaged { DAMAGED } else { 0 });
        bytes.extend_from_slice(self.id.as_str().as_bytes());
        for word in [self.sequence, self.store_ms, self.disk_bytes] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for (name, stored) in &self.kinds {
            // Report names have at most 64 characters, so this never cuts one.
            let name = &name.as_bytes()[..name.len().min(255)];
            bytes.extend_from_slice(&stored.to_le_bytes());
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name);
        }
        let length = (bytes.len() + TAIL) as u32;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        let check = checksum(&bytes[HEAD..]);
        bytes[4..HEAD].copy_from_slice(&check.to_le_bytes());
        bytes
    }
}

// Works on a word at a time: a byte-wise CRC takes ten times as long, and the checksum is most of the cost of reading a catalog.
// Each step is reversible, so two texts that differ in one word always have different sums.
fn checksum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mut sum = bytes.len() as u64;
    let mut mix = |word: u64| sum = (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    words.by_ref().for_each(|word| mix(u64::from_le_bytes(word.try_into().unwrap_or_default())));
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(u64::from_le_bytes(last));
    sum
}

// Decodes a whole record. The flag is true if the capture still exists.
fn decode(bytes: &[u8]) -> Option<(Record<'_>, bool)> {
    let (head, body) = bytes.split_at_checked(HEAD)?;
    if head[4..] != checksum(body).to_le_bytes() || body.len() < FIXED - HEAD + TAIL {
        return None;
    }
    let word = |at: usize| body[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let (flags, id) = body.split_first()?;
    let record = Record {
        id: Id::of_record(*id.first_chunk()?),
        sequence: word(29),
        store_ms: word(37),
        disk_bytes: word(45),
        pinned: flags & PINNED != 0,
        damaged: flags & DAMAGED != 0,
        kinds: &body[FIXED - HEAD..body.len() - TAIL],
    };
    Some((record, flags & GONE == 0))
}

fn length_at(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (FIXED + TAIL..=MAX_RECORD).contains(&length).then_some(length)
}

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
        let check = checksum(&bytes[HEAD..]);
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

    fn save(&self) -> Option<()> {
        self.file.write_all_at(&self.header.encode(), 0).ok()
    }
}

struct Marked {
    disk_bytes: u64,
    store_ms: u64,
    damaged: bool,
}

/// Writes a new catalog. The stamp of `reports/` must be taken before the directory is read, so that any later change is noticed.
pub fn write(
    store: &Store,
    records: impl Iterator<Item = NewRecord>,
    strange_bytes: u64,
    reports: Stamp,
    checked_ms: i64,
) -> Result<()> {
    let _guard = store.lock()?;
    let mut header = Header { reports, index: Stamp::of_index(store), ..Header::default() };
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

/// Appends to the index by calling `act`, under the lock that the caller holds. `pinned` names the capture and its new pin state,
/// if that changes.
pub fn with_index<T>(store: &Store, pinned: Option<(Id, bool)>, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let catalog = Catalog::open(store, Access::Write).filter(|catalog| catalog.knows_index(store));
    let done = act()?;
    if let Some(mut catalog) = catalog {
        let marked = pinned.is_none_or(|(id, pinned)| catalog.set_pinned(id, pinned).is_some());
        if marked {
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

#[cfg(test)]
mod tests;
