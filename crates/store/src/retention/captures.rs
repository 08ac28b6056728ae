//! The captures that a plan is about, packed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::catalog::{NewRecord, Record};
use crate::id::Id;
use crate::index::Entry;

/// The kind of captures in which every report failed.
pub(super) const NO_REPORT: &str = "captures without any report";

/// The number of that kind. Every list of kinds begins with it.
pub(super) const NO_REPORT_KIND: u32 = 0;

/// The data about one capture that a plan needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capture {
    pub(super) id: Id,
    pub(super) sequence: u64,
    pub(super) store_ms: u64,
    pub(super) disk_bytes: u64,
    // Start of its shares in `Captures::shares`, and their number.
    pub(super) first_share: u32,
    pub(super) shares: u32,
    // Offset of its record in the catalog.
    pub(super) at: Option<NonZeroU32>,
    pub(super) pinned: bool,
    pub(super) shipped: bool,
}

/// The part of a capture that one kind of report takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) kind: u32,
    pub(super) bytes: u64,
}

/// The captures of a plan, in any order. Each takes 72 bytes, and 16 for each kind of report in it.
#[derive(Clone, Debug)]
pub struct Captures {
    pub(super) list: Vec<Capture>,
    pub(super) shares: Vec<Share>,
    pub(super) names: Vec<String>,
    pub(super) numbers: BTreeMap<String, u32>,
    // Number and disk usage of existing captures that are not in the list.
    pub(super) omitted: (u64, u64),
}

impl Default for Captures {
    fn default() -> Self {
        let none = NO_REPORT.to_owned();
        Self {
            list: Vec::new(),
            shares: Vec::new(),
            numbers: BTreeMap::from([(none.clone(), NO_REPORT_KIND)]),
            names: vec![none],
            omitted: (0, 0),
        }
    }
}

impl Captures {
    /// Returns the number of captures.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Returns the id of a capture. Captures are numbered in the order in which they are added.
    pub fn id(&self, i: usize) -> Id {
        self.list[i].id
    }

    /// Returns true if the capture is known to be pinned.
    pub fn is_pinned(&self, i: usize) -> bool {
        self.list[i].pinned
    }

    /// Returns the disk usage of all captures, bytes.
    pub fn bytes(&self) -> u64 {
        self.list.iter().fold(self.omitted.1, |sum, capture| sum.saturating_add(capture.disk_bytes))
    }

    /// Notes the number and disk usage of existing captures that are not in the list.
    pub fn omit(&mut self, captures: u64, bytes: u64) {
        self.omitted = (captures, bytes);
    }

    /// Adds a capture.
    pub fn push(&mut self, entry: &Entry) {
        let capture = self.pack(entry);
        self.list.push(capture);
    }

    /// Adds a capture from its record in the catalog, which is at offset `at`.
    pub fn push_record(&mut self, at: u64, record: &Record<'_>) {
        let first = self.shares.len();
        for (kind, (name, bytes)) in record.kinds().enumerate() {
            // Consecutive captures mostly have the same kinds of report.
            let like_last = self.list.last().and_then(|last| self.shares_of(last).get(kind));
            let like_last = like_last.map(|share| share.kind).filter(|kind| self.names[*kind as usize] == name);
            let kind = like_last.unwrap_or_else(|| self.number(name));
            self.shares.push(Share { kind, bytes });
        }
        if self.shares.len() == first {
            self.shares.push(Share { kind: NO_REPORT_KIND, bytes: record.disk_bytes });
        }
        self.list.push(Capture {
            id: record.id,
            sequence: record.sequence,
            store_ms: record.store_ms,
            disk_bytes: record.disk_bytes,
            first_share: first as u32,
            shares: (self.shares.len() - first) as u32,
            at: u32::try_from(at).ok().and_then(NonZeroU32::new),
            pinned: record.pinned,
            shipped: record.shipped,
        });
    }

    /// Returns all captures as catalog records, oldest first.
    pub fn records(&self) -> impl Iterator<Item = NewRecord> + '_ {
        self.in_order().into_iter().map(|i| {
            let capture = &self.list[i as usize];
            let kinds = self.shares_of(capture).iter().filter(|share| share.kind != NO_REPORT_KIND);
            NewRecord {
                id: capture.id,
                sequence: capture.sequence,
                store_ms: capture.store_ms,
                disk_bytes: capture.disk_bytes,
                pinned: capture.pinned,
                shipped: capture.shipped,
                damaged: false,
                kinds: kinds.map(|share| (self.names[share.kind as usize].clone(), share.bytes)).collect(),
            }
        })
    }

    /// Returns the offset of a capture's record in the catalog, if the capture came from there.
    pub fn place(&self, i: usize) -> Option<u64> {
        self.list[i].at.map(|at| u64::from(at.get()))
    }

    /// Returns the time of the oldest unpinned capture, or the maximum if there is none.
    pub fn oldest_ms(&self) -> u64 {
        self.list.iter().filter(|capture| !capture.pinned).map(|capture| capture.store_ms).min().unwrap_or(u64::MAX)
    }

    // Returns the numbers of the captures, oldest first.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.list.len() as u32).collect();
        order.sort_unstable_by_key(|i| (self.list[*i as usize].sequence, self.list[*i as usize].id));
        order
    }

    /// Replaces the data about a capture. Returns true if the new data is different.
    pub fn replace(&mut self, i: usize, entry: &Entry) -> bool {
        let (before, after) = (self.list[i], self.pack(entry));
        let figures = |c: &Capture| (c.sequence, c.store_ms, c.disk_bytes, c.pinned, c.shipped);
        let shares = |c: &Capture| {
            let mut shares = self.shares_of(c).to_vec();
            shares.sort_unstable_by_key(|share| share.kind);
            shares
        };
        let same = figures(&before) == figures(&after) && shares(&before) == shares(&after);
        if same {
            self.shares.truncate(after.first_share as usize);
        } else {
            self.list[i] = Capture { at: before.at, ..after };
        }
        !same
    }

    /// Notes that a capture was pinned.
    pub fn pin(&mut self, i: usize) {
        self.list[i].pinned = true;
    }

    /// Drops the captures for which `wanted` returns false. The remaining captures are renumbered.
    pub fn retain(&mut self, mut wanted: impl FnMut(usize, Id) -> bool) {
        let mut numbers = 0..;
        self.list.retain(|capture| numbers.next().is_some_and(|i| wanted(i, capture.id)));
    }

    pub(super) fn pack(&mut self, entry: &Entry) -> Capture {
        let mut shares = BTreeMap::<u32, u64>::new();
        for report in entry.reports.iter().filter(|report| report.has_data()) {
            let bytes = shares.entry(self.number(&report.name)).or_default();
            *bytes = bytes.saturating_add(report.stored_bytes);
        }
        if shares.is_empty() {
            shares.insert(NO_REPORT_KIND, entry.disk_bytes);
        }
        let first = self.shares.len();
        self.shares.extend(shares.into_iter().map(|(kind, bytes)| Share { kind, bytes }));
        // Cannot overflow: the index is at most 256 MiB and a `meta.json` at most 4 MiB, which limits the number of reports.
        Capture {
            id: entry.id,
            sequence: entry.sequence,
            store_ms: entry.store_ms,
            disk_bytes: entry.disk_bytes,
            first_share: first as u32,
            shares: (self.shares.len() - first) as u32,
            at: None,
            pinned: entry.pinned,
            shipped: entry.shipped,
        }
    }

    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    pub(super) fn shares_of(&self, capture: &Capture) -> &[Share] {
        &self.shares[capture.first_share as usize..][..capture.shares as usize]
    }
}
