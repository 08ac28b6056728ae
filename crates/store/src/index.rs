//! `index.jsonl`: a cache over `reports/*/meta.json`, one line a capture. A later line for the same id replaces an earlier one.
//!
//! It is never believed against the directory: captures that it does not have are read from their `meta.json`, those that are
//! gone are passed over, and retention rewrites it when it was wrong. A torn tail or a damaged line costs reading one `meta.json`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::MOST_BYTES;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::layout::INDEX;
use crate::{Store, meta};
use diagctl_fs::checksum;
use diagctl_fs::{self as fs, Durability};
use diagctl_observe::clock::LAST_MS;

/// No index is larger: 256 MiB, for half a million captures.
const MAX_FILE: u64 = 256 << 20;

/// No line is longer: it has a part of what is in a `meta.json`.
const MAX_LINE: u64 = 4 << 20;

/// So many lines has an index that cannot be read: too many.
const UNREADABLE: usize = usize::MAX;

/// Marks a capture as pinned, in its directory: the truth, of which the index keeps a copy.
pub const PIN_FILE: &str = "pinned";

/// One line: what `list` shows and what retention decides by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The capture.
    pub id: String,
    /// Sorts captures.
    pub sequence: u64,
    /// UTC, RFC 3339.
    pub created: String,
    /// On the store's time line, milliseconds.
    pub store_ms: u64,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// What it does.
    pub role: String,
    /// Its name within the role.
    pub worker: String,
    /// The rule.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// The request that was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The reports.
    pub reports: Vec<EntryReport>,
    /// What its directory occupies on disk, in whole blocks.
    pub disk_bytes: u64,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// A report in an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EntryReport {
    /// Its name.
    pub name: String,
    /// Size of the file.
    pub stored_bytes: u64,
    /// Size of the content.
    pub raw_bytes: u64,
    /// Why there is no data; with a size, where the data is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl EntryReport {
    /// Whether there is data, be it damaged. No file is empty: it is compressed.
    pub fn has_data(&self) -> bool {
        self.error.is_none() || self.stored_bytes > 0
    }
}

impl Entry {
    // Sizes are summed and moments subtracted: a line with a number that cannot be is as good as none.
    fn is_plausible(&self) -> bool {
        let sizes = self.reports.iter().map(|report| report.stored_bytes.max(report.raw_bytes));
        sizes.chain([self.disk_bytes]).all(|bytes| bytes <= MOST_BYTES)
            && self.store_ms <= LAST_MS
            && self.sequence <= u64::MAX / 2
    }

    /// The entry for a published capture.
    pub fn of(store: &Store, meta: &meta::Meta) -> Self {
        let dir = store.report_dir(&meta.id);
        Self {
            id: meta.id.clone(),
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
                })
                .collect(),
            disk_bytes: fs::occupied_tree(&dir),
            pinned: dir.join(PIN_FILE).exists(),
        }
    }
}

/// The captures of a store in their order, each read when it is asked for: a listing of a hundred thousand takes a few MiB.
#[derive(Debug)]
pub struct Listing<'a> {
    store: &'a Store,
    index: Option<File>,
    /// The oldest first; where only the newest were wanted, those.
    captures: Vec<Placed>,
    /// How many readable captures there are.
    pub total: usize,
    /// Captures whose `meta.json` cannot be read, with the reason.
    pub damaged: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    sequence: u64,
    id: Id,
    // Its line in the index, where there is one.
    line: Option<(u64, u32)>,
}

impl<'a> Listing<'a> {
    /// Of all captures.
    pub fn all(store: &'a Store) -> Result<Self> {
        let mut present = Present::list(store)?;
        let mut captures = Vec::with_capacity(present.captures.len());
        scan(store, |at, entry, bytes| {
            let Some((id, number)) = Id::parse(&entry.id).zip(present.number(&entry.id)) else { return };
            let placed = Placed { sequence: entry.sequence, id, line: Some((at as u64, bytes.len() as u32)) };
            match number {
                Some(number) => captures[*number] = placed,
                None => {
                    *number = Some(captures.len());
                    captures.push(placed);
                }
            }
        });
        let damaged = read_unknown(store, &present, |entry| {
            captures.extend(Id::parse(&entry.id).map(|id| Placed { sequence: entry.sequence, id, line: None }));
        });
        captures.sort_unstable();
        let index = fs::open_read(&store.path(INDEX)).ok();
        Ok(Self { store, index, total: captures.len(), captures, damaged })
    }

    /// Of the newest captures, by the catalog; nothing where that cannot be believed.
    pub fn newest(store: &'a Store, most: usize) -> Option<Self> {
        let catalog = Catalog::current(store)?;
        let mut captures = Vec::new();
        let whole = most == 0
            || catalog.newest_first(|record| {
                if !record.damaged {
                    captures.push(Placed { sequence: record.sequence, id: record.id, line: None });
                }
                captures.len() < most
            });
        captures.reverse();
        let damaged = damaged_by(store, &catalog)?;
        let total = usize::try_from(catalog.totals().captures).ok()?;
        whole.then_some(Self { store, index: None, captures, total, damaged })
    }

    /// The numbers of the captures, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.captures.len()).rev()
    }

    /// A capture by its number; nothing where it is gone, or cannot be read any more.
    pub fn entry(&self, number: usize) -> Option<Entry> {
        let placed = self.captures.get(number)?;
        self.by_line(placed).or_else(|| {
            let meta = meta::read(&self.store.report_dir(placed.id.as_str())).ok()?;
            Some(Entry::of(self.store, &meta))
        })
    }

    fn by_line(&self, placed: &Placed) -> Option<Entry> {
        let (at, length) = placed.line?;
        let mut line = vec![0; length as usize];
        self.index.as_ref()?.read_exact_at(&mut line, at).ok()?;
        // The index may have been written anew since it was read.
        understand(&line).filter(|entry| entry.id == placed.id.as_str())
    }
}

// Those that the catalog knows as damaged, with the reason; nothing where one of them can be read after all.
fn damaged_by(store: &Store, catalog: &Catalog) -> Option<Vec<(String, String)>> {
    let mut ids = Vec::new();
    if catalog.totals().damaged > 0 && !catalog.each(|_, record| ids.extend(record.damaged.then_some(record.id))) {
        return None;
    }
    let reason =
        |id: &Id| Some((id.as_str().to_owned(), meta::read(&store.report_dir(id.as_str())).err()?.to_string()));
    ids.iter().map(reason).collect()
}

/// Shows every readable capture once, in no order and one at a time; returns those whose `meta.json` cannot be read, with the
/// reason. What may change of a capture, whether it is pinned, may be what it was.
pub fn visit(store: &Store, present: &mut Present, mut found: impl FnMut(Entry)) -> Vec<(String, String)> {
    present.forget_numbers();
    scan(store, |line, entry, _| {
        if let Some(number @ None) = present.number(&entry.id) {
            *number = Some(line);
            found(entry);
        }
    });
    read_unknown(store, present, found)
}

/// How many captures there are, and which is the last.
#[derive(Debug, Default)]
pub struct Summary {
    /// Those that are readable.
    pub captures: usize,
    /// The newest of them.
    pub latest: Option<Entry>,
    /// Captures whose `meta.json` cannot be read, with the reason.
    pub damaged: Vec<(String, String)>,
}

/// By the catalog, or else by a look at every capture.
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

/// The newest capture that serves a request, which was made at this moment on the store's time line.
pub fn of_request(store: &Store, request: &str, created_ms: u64) -> Result<Option<Id>> {
    let mut found = None;
    let looked = Catalog::current(store).is_some_and(|catalog| {
        catalog.newest_first(|record| {
            let meta = meta::read(&store.report_dir(record.id.as_str())).ok();
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
    Ok(newest.and_then(|entry| Id::parse(&entry.id)))
}

/// Puts an entry in place of an older one.
pub fn keep_newest(newest: &mut Option<Entry>, entry: Entry) {
    if newest.as_ref().is_none_or(|newest| (newest.sequence, &newest.id) < (entry.sequence, &entry.id)) {
        *newest = Some(entry);
    }
}

// What the index does not have.
fn read_unknown(store: &Store, present: &Present, mut found: impl FnMut(Entry)) -> Vec<(String, String)> {
    let mut damaged = Vec::new();
    for id in present.unknown() {
        let dir = store.report_dir(id.as_str());
        match meta::read(&dir) {
            Ok(meta) => found(Entry::of(store, &meta)),
            // Deleted since the directory was read.
            Err(e) if e.is_not_found() && !dir.exists() => {}
            Err(e) => damaged.push((id.as_str().to_owned(), e.to_string())),
        }
    }
    damaged
}

fn understand(line: &[u8]) -> Option<Entry> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    (entry.is_plausible() && checksum::is_whole(line)).then_some(entry)
}

/// Reads the lines that can be understood, one at a time and so with little memory: each with where it begins. Returns how many
/// lines there are.
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

/// The same for what may be in such a file.
pub fn parse(mut file: impl BufRead, mut found: impl FnMut(usize, Entry, &[u8])) -> usize {
    let mut line = Vec::new();
    let (mut lines, mut at) = (0, 0);
    // What goes on after the bound of a line is the next one, and damaged like this one.
    while file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let whole = line.trim_ascii_end();
        if let Some(entry) = understand(whole) {
            found(at, entry, whole);
        }
        lines += 1;
        at += line.len();
        line.clear();
    }
    lines
}

/// Whether so many lines are too many for what is known by them: rewriting costs as much as everything that is in it.
pub fn is_stale(lines: usize, known: usize) -> bool {
    lines > known + known / 2
}

/// Rewrites the index without the lines that say nothing any more. Under the lock, so that a pin or a capture of the last moment
/// is not lost, and a line at a time.
pub fn compact(store: &Store) -> Result<()> {
    let _guard = store.lock()?;
    let mut last = Present::list(store)?;
    scan(store, |line, entry, _| {
        if let Some(number) = last.number(&entry.id) {
            *number = Some(line);
        }
    });
    let write = |file: &mut File| {
        let mut file = BufWriter::new(file);
        let mut result = Ok(());
        scan(store, |line, entry, bytes| {
            if result.is_ok() && last.number(&entry.id).is_some_and(|number| *number == Some(line)) {
                result = file.write_all(bytes).and_then(|()| file.write_all(b"\n"));
            }
        });
        result.and_then(|()| file.flush())
    };
    catalog::with_index(store, None, || Ok(fs::write_atomic_with(&store.path(INDEX), Durability::Volatile, write)?))
}

/// What is in `reports/`.
#[derive(Debug, Default)]
pub struct Present {
    /// The directories that are captures by their names, in that order, each with room for a number.
    captures: Vec<(Id, Option<usize>)>,
    /// Whatever else is there, a symbolic link say. None of it is ours.
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

    /// The number of a capture, if that is present.
    pub fn number(&mut self, id: &str) -> Option<&mut Option<usize>> {
        let id = Id::parse(id)?;
        let at = self.captures.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.captures.get_mut(at).map(|(_, number)| number)
    }

    /// Takes all numbers back.
    pub fn forget_numbers(&mut self) {
        self.captures.iter_mut().for_each(|(_, number)| *number = None);
    }

    /// All captures, in the order of their ids.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.captures.iter().map(|(id, _)| id.as_str())
    }

    /// The captures without a number.
    pub fn unknown(&self) -> impl Iterator<Item = Id> + '_ {
        self.captures.iter().filter(|(_, number)| number.is_none()).map(|(id, _)| *id)
    }
}

/// Adds a line for a capture that was published.
pub fn append(store: &Store, entry: &Entry) -> Result<()> {
    append_line(store, entry, None)
}

/// Adds a line for a capture that was pinned, or is not any more.
pub fn append_pinned(store: &Store, entry: &Entry) -> Result<()> {
    append_line(store, entry, Id::parse(&entry.id).map(|id| (id, entry.pinned)))
}

fn append_line(store: &Store, entry: &Entry, pinned: Option<(Id, bool)>) -> Result<()> {
    let line = line(entry)?;
    let _guard = store.lock()?;
    catalog::with_index(store, pinned, || Ok(fs::append_line(&store.path(INDEX), &line, Durability::Volatile)?))
}

/// Adds what was learned from the records of captures. Whether they are pinned is asked again under the lock: a `pin` of the last
/// moment has its line before these, or will have it after them.
pub fn learn(store: &Store, entries: &mut [Entry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let _guard = store.lock()?;
    let mut lines = Vec::new();
    for entry in entries {
        entry.pinned = store.report_dir(&entry.id).join(PIN_FILE).exists();
        lines.push(line(entry)?);
    }
    Ok(fs::append_line(&store.path(INDEX), &lines.join(&b'\n'), Durability::Volatile)?)
}

fn line(entry: &Entry) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(entry).map_err(Error::encode("the index"))?;
    Ok(checksum::seal(&json))
}
