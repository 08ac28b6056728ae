//! `index.jsonl`: a cache over `reports/*/meta.json`, one line per capture. A later line for the same id replaces an earlier one.
//!
//! The directory is authoritative. A capture that is missing from the index is read from its `meta.json`, a line of a deleted
//! capture is ignored, and retention rewrites a stale index. A torn tail or a damaged line costs one read of a `meta.json`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::MOST_BYTES;
use crate::catalog::{self, Catalog, Stamp};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::layout::INDEX;
use crate::report_name::ReportName;
use crate::{Store, meta};
use diagctl_fs::checksum;
use diagctl_fs::{self as fs, Durability};
use diagctl_observe::clock::LAST_MS;

/// Maximum size of the index: 256 MiB, for half a million captures.
const MAX_FILE: u64 = 256 << 20;

/// Maximum length of a line. A line holds a part of a `meta.json`.
const MAX_LINE: u64 = 4 << 20;

/// The line count of an index that cannot be read. Any index with so many lines is stale.
const UNREADABLE: usize = usize::MAX;

/// The marker file in a pinned capture's directory. The marker is authoritative, and the index keeps a copy.
pub const PIN_FILE: &str = "pinned";

/// One line of the index: the data that `list` shows and retention uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The capture's id.
    pub id: Id,
    /// The sequence number, which orders captures.
    pub sequence: u64,
    /// Time of the capture, UTC, RFC 3339.
    pub created: String,
    /// Time of the capture on the store's time line, milliseconds.
    pub store_ms: u64,
    /// The machine's name.
    pub host: String,
    /// The pid of the process.
    pub pid: u32,
    /// The process's role.
    pub role: String,
    /// Its name within the role.
    pub worker: String,
    /// The rule.
    pub rule: String,
    /// The reason.
    pub reason: String,
    /// The request that was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The reports.
    pub reports: Vec<EntryReport>,
    /// Disk usage of the capture's directory in whole blocks, bytes.
    pub disk_bytes: u64,
    /// Set if the capture is pinned.
    pub pinned: bool,
}

/// A report in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReport {
    /// Its name.
    pub name: ReportName,
    /// Size of the file, bytes.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Size of the uncompressed content, bytes.
    #[serde(default)]
    pub raw_bytes: u64,
    /// The reason why there is no data. With a size, the description of the damage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True for a heap dump that contains values of the application.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub values: bool,
}

impl EntryReport {
    /// Creates an entry in which only the name is set.
    pub fn new(name: ReportName) -> Self {
        Self { name, stored_bytes: 0, raw_bytes: 0, error: None, values: false }
    }

    /// Returns true if there is data, even damaged data. A stored file is compressed and so never empty.
    pub fn has_data(&self) -> bool {
        self.error.is_none() || self.stored_bytes > 0
    }
}

impl Entry {
    // Sizes are summed and times are subtracted, so a line with an impossible number is ignored.
    fn is_plausible(&self) -> bool {
        let sizes = self.reports.iter().map(|report| report.stored_bytes.max(report.raw_bytes));
        sizes.chain([self.disk_bytes]).all(|bytes| bytes <= MOST_BYTES)
            && self.store_ms <= LAST_MS
            && self.sequence <= u64::MAX / 2
    }

    /// Creates the entry of a published capture.
    pub fn of(store: &Store, meta: &meta::Meta) -> Self {
        let dir = store.report_dir(&meta.id);
        Self {
            id: meta.id,
            sequence: meta.sequence,
            created: meta.created.clone(),
            store_ms: meta.store_ms,
            host: meta.host.clone(),
            pid: meta.pid,
            role: meta.role.clone(),
            worker: meta.worker.clone(),
            rule: meta.rule.clone(),
            reason: meta.trigger.reason.clone(),
            request: meta.request.clone(),
            reports: meta
                .reports
                .iter()
                .map(|r| EntryReport {
                    name: r.name.clone(),
                    stored_bytes: r.stored_bytes,
                    raw_bytes: r.raw_bytes,
                    error: r.error.clone(),
                    values: r.has_values(),
                })
                .collect(),
            disk_bytes: fs::occupied_tree(&dir),
            pinned: dir.join(PIN_FILE).exists(),
        }
    }
}

/// The captures of a store in order. Each entry is read on request, so a listing of a hundred thousand captures takes a few MiB.
#[derive(Debug)]
pub struct Listing<'a> {
    store: &'a Store,
    index: Option<File>,
    /// Oldest first. A listing of the newest holds only those.
    captures: Vec<Placed>,
    /// The entries of a listing of the newest.
    read: Vec<Entry>,
    /// The number of readable captures.
    pub total: usize,
    /// Captures whose `meta.json` cannot be read, with the reason.
    pub damaged: Vec<(Id, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    sequence: u64,
    id: Id,
    // Offset and length of its line in the index, if it has one.
    line: Option<(u64, u32)>,
}

impl<'a> Listing<'a> {
    /// Lists all captures.
    pub fn all(store: &'a Store) -> Result<Self> {
        let mut present = Present::list(store)?;
        let mut captures = Vec::with_capacity(present.captures.len());
        scan(store, |at, entry, bytes| {
            let Some(number) = present.number(entry.id) else { return };
            let placed = Placed { sequence: entry.sequence, id: entry.id, line: Some((at as u64, bytes.len() as u32)) };
            match number {
                Some(number) => captures[*number] = placed,
                None => {
                    *number = Some(captures.len());
                    captures.push(placed);
                }
            }
        });
        let damaged = read_unknown(store, &present, |entry| {
            captures.push(Placed { sequence: entry.sequence, id: entry.id, line: None });
        });
        captures.sort_unstable();
        let index = fs::open_read(&store.path(INDEX)).ok();
        Ok(Self { store, index, total: captures.len(), captures, read: Vec::new(), damaged })
    }

    /// Lists the `most` newest captures by the catalog. Returns `None` if the catalog is not valid. A capture that was damaged
    /// since the catalog was written counts as damaged.
    pub fn newest(store: &'a Store, most: usize) -> Option<Self> {
        let catalog = Catalog::current(store)?;
        let (mut captures, mut read) = (Vec::new(), Vec::new());
        let mut damaged = damaged_by(store, &catalog)?;
        let mut total = usize::try_from(catalog.totals().captures).ok()?;
        let whole = most == 0
            || catalog.newest_first(|record| {
                let placed = Placed { sequence: record.sequence, id: record.id, line: None };
                let dir = store.report_dir(&record.id);
                match meta::read(&dir) {
                    _ if record.damaged => {}
                    Ok(meta) => {
                        captures.push(placed);
                        read.push(Entry::of(store, &meta));
                    }
                    Err(error) => {
                        total = total.saturating_sub(1);
                        if dir.exists() {
                            damaged.push((record.id, error.to_string()));
                        }
                    }
                }
                captures.len() < most
            });
        captures.reverse();
        read.reverse();
        whole.then_some(Self { store, index: None, captures, read, total, damaged })
    }

    /// Reads the records of the newest captures, because the index does not tell of damage since it was written. Those that cannot
    /// be read count as damaged.
    pub fn check_newest(&mut self, most: usize) {
        let mut newest = self.captures.split_off(self.captures.len().saturating_sub(most));
        newest.retain(|placed| {
            let dir = self.store.report_dir(&placed.id);
            let Err(error) = meta::read(&dir) else { return true };
            if dir.exists() {
                self.damaged.push((placed.id, error.to_string()));
            }
            false
        });
        self.captures.append(&mut newest);
        self.total = self.captures.len();
    }

    /// Returns the numbers of the captures, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.captures.len()).rev()
    }

    /// Returns a capture by its number, or `None` if it is gone or cannot be read.
    pub fn entry(&self, number: usize) -> Option<Entry> {
        let placed = self.captures.get(number)?;
        self.read.get(number).cloned().or_else(|| self.by_line(placed)).or_else(|| {
            let meta = meta::read(&self.store.report_dir(&placed.id)).ok()?;
            Some(Entry::of(self.store, &meta))
        })
    }

    fn by_line(&self, placed: &Placed) -> Option<Entry> {
        let (at, length) = placed.line?;
        let mut line = vec![0; length as usize];
        self.index.as_ref()?.read_exact_at(&mut line, at).ok()?;
        // The index may have been rewritten since it was scanned.
        parse_line(&line).filter(|entry| entry.id == placed.id)
    }
}

// Returns the captures that the catalog lists as damaged, with the reason. Returns `None` if one of them can be read after all.
fn damaged_by(store: &Store, catalog: &Catalog) -> Option<Vec<(Id, String)>> {
    let mut ids = Vec::new();
    if catalog.totals().damaged > 0 && !catalog.each(|_, record| ids.extend(record.damaged.then_some(record.id))) {
        return None;
    }
    let reason = |id: &Id| Some((*id, meta::read(&store.report_dir(id)).err()?.to_string()));
    ids.iter().map(reason).collect()
}

/// Calls `found` once for every readable capture, in no particular order. Returns the captures whose `meta.json` cannot be read,
/// with the reason. The pin state of an entry may be out of date.
pub fn visit(store: &Store, present: &mut Present, mut found: impl FnMut(Entry)) -> Vec<(Id, String)> {
    present.forget_numbers();
    scan(store, |line, entry, _| {
        if let Some(number @ None) = present.number(entry.id) {
            *number = Some(line);
            found(entry);
        }
    });
    read_unknown(store, present, found)
}

/// The number of captures and the newest one.
#[derive(Debug, Default)]
pub struct Summary {
    /// The number of readable captures.
    pub captures: usize,
    /// The newest readable capture.
    pub latest: Option<Entry>,
    /// Captures whose `meta.json` cannot be read, with the reason.
    pub damaged: Vec<(Id, String)>,
}

/// Summarizes the store from the catalog, or from a look at every capture if the catalog is not valid.
pub fn summary(store: &Store) -> Result<Summary> {
    if let Some(listing) = Listing::newest(store, 1) {
        let latest = listing.newest_first().next().and_then(|number| listing.entry(number));
        if latest.is_some() || listing.total == 0 {
            return Ok(Summary { captures: listing.total, latest, damaged: listing.damaged });
        }
    }
    let (mut captures, mut latest) = (0, None);
    let damaged = visit(store, &mut Present::list(store)?, |entry| {
        captures += 1;
        keep_newest(&mut latest, entry);
    });
    Ok(Summary { captures, latest, damaged })
}

/// Returns the newest capture that serves a request. `created_ms` is the time of the request on the store's time line.
pub fn of_request(store: &Store, request: &str, created_ms: u64) -> Result<Option<Id>> {
    let mut found = None;
    let looked = Catalog::current(store).is_some_and(|catalog| {
        catalog.newest_first(|record| {
            let meta = meta::read(&store.report_dir(&record.id)).ok();
            if meta.is_some_and(|meta| meta.request.as_deref() == Some(request)) {
                found = Some(record.id);
            }
            found.is_none() && record.store_ms >= created_ms
        })
    });
    if looked {
        return Ok(found);
    }
    let mut newest = None;
    visit(store, &mut Present::list(store)?, |entry| {
        if entry.request.as_deref() == Some(request) {
            keep_newest(&mut newest, entry);
        }
    });
    Ok(newest.map(|entry| entry.id))
}

/// Replaces `newest` if the entry is newer.
pub fn keep_newest(newest: &mut Option<Entry>, entry: Entry) {
    if newest.as_ref().is_none_or(|newest| (newest.sequence, newest.id) < (entry.sequence, entry.id)) {
        *newest = Some(entry);
    }
}

// Reads the captures that the index does not list.
fn read_unknown(store: &Store, present: &Present, mut found: impl FnMut(Entry)) -> Vec<(Id, String)> {
    let mut damaged = Vec::new();
    for id in present.unknown() {
        let dir = store.report_dir(&id);
        match meta::read(&dir) {
            Ok(meta) => found(Entry::of(store, &meta)),
            // The capture was deleted after the directory was read.
            Err(e) if e.is_not_found() && !dir.exists() => {}
            Err(e) => damaged.push((id, e.to_string())),
        }
    }
    damaged
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    (entry.is_plausible() && checksum::is_whole(line)).then_some(entry)
}

/// Reads the lines that can be parsed, one at a time to save memory, each with its offset. Returns the number of lines.
pub fn scan(store: &Store, found: impl FnMut(usize, Entry, &[u8])) -> usize {
    let file = match fs::open_read(&store.path(INDEX)) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return 0,
        Err(_) => return UNREADABLE,
    };
    if !file.metadata().is_ok_and(|meta| meta.len() <= MAX_FILE) {
        return UNREADABLE;
    }
    parse(BufReader::new(file.take(MAX_FILE)), found)
}

/// Parses the content of an index, like [`scan`].
pub fn parse(mut file: impl BufRead, mut found: impl FnMut(usize, Entry, &[u8])) -> usize {
    let mut line = Vec::new();
    let (mut lines, mut at) = (0, 0);
    // The rest of an overlong line is read as the next line, and is damaged too.
    while file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let whole = line.trim_ascii_end();
        if let Some(entry) = parse_line(whole) {
            found(at, entry, whole);
        }
        lines += 1;
        at += line.len();
        line.clear();
    }
    lines
}

/// Returns true if the index has so many lines for so few captures that a rewrite pays. A rewrite costs as much as the whole
/// index.
pub fn is_stale(lines: usize, known: usize) -> bool {
    lines > known + known / 2
}

/// Rewrites the index without obsolete lines, one line at a time. Holds the lock, so that a concurrent pin or capture is not
/// lost. `seen` is the index that the caller has read, and becomes the new one unless somebody else has changed it.
pub fn compact(store: &Store, seen: &mut Stamp) -> Result<()> {
    let _guard = store.lock()?;
    let mut last = Present::list(store)?;
    scan(store, |line, entry, _| {
        if let Some(number) = last.number(entry.id) {
            *number = Some(line);
        }
    });
    let write = |file: &mut File| {
        let mut file = BufWriter::new(file);
        let mut result = Ok(());
        scan(store, |line, entry, bytes| {
            if result.is_ok() && last.number(entry.id).is_some_and(|number| *number == Some(line)) {
                result = file.write_all(bytes).and_then(|()| file.write_all(b"\n"));
            }
        });
        result.and_then(|()| file.flush())
    };
    let rewrite = || Ok(fs::write_atomic_with(&store.path(INDEX), Durability::Volatile, write)?);
    as_seen(store, seen, || catalog::with_index(store, None, rewrite))
}

// Changes the index under the lock that the caller holds.
fn as_seen(store: &Store, seen: &mut Stamp, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_seen = *seen == Stamp::of_index(store);
    change()?;
    if is_seen {
        *seen = Stamp::of_index(store);
    }
    Ok(())
}

/// The contents of `reports/`.
#[derive(Debug, Default)]
pub struct Present {
    /// The directories with the name of a capture, in the order of their ids, each with an optional number.
    captures: Vec<(Id, Option<usize>)>,
    /// Everything else, for example symbolic links. None of it is ours.
    pub strange: Vec<OsString>,
}

impl Present {
    /// Reads the directory.
    pub fn list(store: &Store) -> Result<Self> {
        let mut present = Self::default();
        let listing = match fs::list(&store.path("reports")) {
            Err(e) if e.is_not_found() => return Ok(present),
            other => other?,
        };
        for entry in listing {
            let entry = entry?;
            match entry.name.to_str().and_then(Id::parse).filter(|_| entry.kind.is_dir()) {
                Some(id) => present.captures.push((id, None)),
                None => present.strange.push(entry.name),
            }
        }
        present.captures.sort_unstable();
        Ok(present)
    }

    /// The number of a capture, if the capture is present.
    pub fn number(&mut self, id: Id) -> Option<&mut Option<usize>> {
        let at = self.captures.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.captures.get_mut(at).map(|(_, number)| number)
    }

    /// Removes all numbers.
    pub fn forget_numbers(&mut self) {
        self.captures.iter_mut().for_each(|(_, number)| *number = None);
    }

    /// Returns the ids of all captures in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = Id> + '_ {
        self.captures.iter().map(|(id, _)| *id)
    }

    /// Returns the captures without a number.
    pub fn unknown(&self) -> impl Iterator<Item = Id> + '_ {
        self.captures.iter().filter(|(_, number)| number.is_none()).map(|(id, _)| *id)
    }
}

/// Appends the line of a published capture.
pub fn append(store: &Store, entry: &Entry) -> Result<()> {
    append_line(store, entry, None)
}

/// Appends the line of a capture that was pinned or unpinned.
pub fn append_pinned(store: &Store, entry: &Entry) -> Result<()> {
    append_line(store, entry, Some((entry.id, entry.pinned)))
}

fn append_line(store: &Store, entry: &Entry, pinned: Option<(Id, bool)>) -> Result<()> {
    let line = line(entry)?;
    let _guard = store.lock()?;
    catalog::with_index(store, pinned, || Ok(fs::append_line(&store.path(INDEX), &line, Durability::Volatile)?))
}

/// Appends entries that were read from the captures' own records. Checks the pin markers again under the lock: a concurrent `pin`
/// has appended its line already, or will append it afterwards. `seen` is as for [`compact`].
pub fn learn(store: &Store, entries: &mut [Entry], seen: &mut Stamp) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let _guard = store.lock()?;
    let mut lines = Vec::new();
    for entry in entries {
        entry.pinned = store.report_dir(&entry.id).join(PIN_FILE).exists();
        lines.push(line(entry)?);
    }
    let append = || Ok(fs::append_line(&store.path(INDEX), &lines.join(&b'\n'), Durability::Volatile)?);
    as_seen(store, seen, append)
}

fn line(entry: &Entry) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(entry).map_err(Error::encode("the index"))?;
    Ok(checksum::seal(&json))
}
