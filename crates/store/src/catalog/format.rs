//! The bytes of a catalog: its header and its records.

use std::collections::BTreeMap;

use diagctl_fs::{Spot, checksum};
use serde::{Deserialize, Serialize};

use crate::Store;
use crate::id::Id;
use crate::layout::INDEX;
use crate::meta::Meta;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"diagcat1");
pub(super) const HEADER: usize = 23 * 8;
pub(super) const HEAD: usize = 4 + 8;
pub(super) const FIXED: usize = HEAD + 1 + 28 + 3 * 8;
pub(super) const TAIL: usize = 4;

/// Maximum size of a record, bytes. A record is derived from a `meta.json`, which is at most 4 MiB.
pub(super) const MAX_RECORD: usize = 8 << 20;

pub(super) const GONE: u8 = 1;
pub(super) const PINNED: u8 = 2;
pub(super) const DAMAGED: u8 = 4;
pub(super) const SHIPPED: u8 = 8;

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
pub struct Stamp(pub(super) [u64; 5]);

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

/// The header of a catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Offset of the end of the records.
    pub(super) end: u64,
    pub(super) totals: Totals,
    /// Number of obsolete records and obsolete index lines.
    pub(super) dead: u64,
    /// Wall-clock time of the last full read of the directory, milliseconds.
    pub(super) checked_ms: u64,
    /// The highest sequence number.
    pub(super) last_sequence: u64,
    /// Set if the records are not in order. A capture copied from another store may have a higher number than captures taken
    /// later.
    pub(super) is_mixed: bool,
    /// Offset of the first capture that still exists, or of the end.
    pub(super) first: u64,
    pub(super) reports: Stamp,
    pub(super) index: Stamp,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
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

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
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
    /// Set if the remote has confirmed it.
    pub shipped: bool,
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
    /// Set if the remote has confirmed it.
    pub shipped: bool,
    /// Set if its `meta.json` cannot be read.
    pub damaged: bool,
    /// The kinds of report that the capture has data of, each with its stored bytes.
    pub kinds: Vec<(String, u64)>,
}

impl NewRecord {
    /// Creates the record of a capture that is published or about to be.
    pub fn of(meta: &Meta, disk_bytes: u64) -> Self {
        let mut kinds = BTreeMap::<&str, u64>::new();
        for report in meta.reports.iter().filter(|report| report.error.is_none() || report.stored_bytes > 0) {
            let bytes = kinds.entry(&report.name).or_default();
            *bytes = bytes.saturating_add(report.stored_bytes);
        }
        Self {
            id: meta.id,
            sequence: meta.sequence,
            store_ms: meta.store_ms,
            disk_bytes,
            pinned: false,
            shipped: false,
            damaged: false,
            kinds: kinds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
        }
    }

    /// Creates the record of a capture that cannot be read.
    pub fn damaged(id: Id, disk_bytes: u64) -> Self {
        let (sequence, store_ms, pinned, shipped, kinds) = (0, 0, false, false, Vec::new());
        Self { id, sequence, store_ms, disk_bytes, pinned, shipped, damaged: true, kinds }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        let flags = [(self.pinned, PINNED), (self.damaged, DAMAGED), (self.shipped, SHIPPED)];
        bytes.push(flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
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
        let check = check_of(&bytes[HEAD..]);
        bytes[4..HEAD].copy_from_slice(&check.to_le_bytes());
        bytes
    }
}

// Works on a word at a time: a byte-wise CRC takes ten times as long, and the checksum is most of the cost of reading a catalog.
// Each step is reversible, so two texts that differ in one word always have different sums.
pub(super) fn check_of(bytes: &[u8]) -> u64 {
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
pub(super) fn decode(bytes: &[u8]) -> Option<(Record<'_>, bool)> {
    let (head, body) = bytes.split_at_checked(HEAD)?;
    if head[4..] != check_of(body).to_le_bytes() || body.len() < FIXED - HEAD + TAIL {
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
        shipped: flags & SHIPPED != 0,
        damaged: flags & DAMAGED != 0,
        kinds: &body[FIXED - HEAD..body.len() - TAIL],
    };
    Some((record, flags & GONE == 0))
}

pub(super) fn length_at(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (FIXED + TAIL..=MAX_RECORD).contains(&length).then_some(length)
}
