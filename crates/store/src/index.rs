//! `index.jsonl`: a cache over `reports/*/meta.json`, one line per capture. A later line for the same id replaces an earlier one.
//!
//! The directory is authoritative. A capture that is missing from the index is read from its `meta.json`, a line of a deleted
//! capture is ignored, and retention rewrites a stale index. A torn tail or a damaged line costs one read of a `meta.json`.

mod entry;
mod listing;
mod present;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};

pub use entry::{Entry, EntryReport, PIN_FILE, SHIPPED_FILE};
pub use listing::Listing;
pub use present::Present;

use crate::catalog::{self, Catalog, Mark, Stamp};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::layout::INDEX;
use crate::{Store, meta};
use diagctl_fs::checksum;
use diagctl_fs::{self as fs, Durability};

/// Maximum size of the index: 256 MiB, for half a million captures.
const MAX_FILE: u64 = 256 << 20;

/// Maximum length of a line. A line holds a part of a `meta.json`.
const MAX_LINE: u64 = 4 << 20;

/// The line count of an index that cannot be read. Any index with so many lines is stale.
const UNREADABLE: usize = usize::MAX;

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

/// Appends the line of a published capture.
pub fn append(store: &Store, entry: &Entry) -> Result<()> {
    append_line(store, entry, None)
}

/// Appends the line of a capture that was pinned or unpinned.
pub fn append_pinned(store: &Store, entry: &Entry) -> Result<()> {
    append_line(store, entry, Some(Mark::Pinned(entry.id, entry.pinned)))
}

/// Appends the line of a capture that the remote has confirmed.
pub fn append_shipped(store: &Store, entry: &Entry) -> Result<()> {
    append_line(store, entry, Some(Mark::Shipped(entry.id)))
}

fn append_line(store: &Store, entry: &Entry, mark: Option<Mark>) -> Result<()> {
    let line = line(entry)?;
    let _guard = store.lock()?;
    catalog::with_index(store, mark, || Ok(fs::append_line(&store.path(INDEX), &line, Durability::Volatile)?))
}

/// Appends entries that were read from the captures' own records. Checks the markers again under the lock: a concurrent `pin`
/// has appended its line already, or will append it afterwards. `seen` is as for [`compact`].
pub fn learn(store: &Store, entries: &mut [Entry], seen: &mut Stamp) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let _guard = store.lock()?;
    let mut lines = Vec::new();
    for entry in entries {
        let dir = store.report_dir(&entry.id);
        (entry.pinned, entry.shipped) = (dir.join(PIN_FILE).exists(), dir.join(SHIPPED_FILE).is_file());
        lines.push(line(entry)?);
    }
    let append = || Ok(fs::append_line(&store.path(INDEX), &lines.join(&b'\n'), Durability::Volatile)?);
    as_seen(store, seen, append)
}

fn line(entry: &Entry) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(entry).map_err(Error::encode("the index"))?;
    Ok(checksum::seal(&json))
}
