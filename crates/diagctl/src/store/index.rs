//! `index.jsonl`: a cache over `reports/*/meta.json`, one line a capture. A later line for the same id replaces an earlier one.
//!
//! It is never believed against the directory: captures that it does not have are read from their `meta.json`, those that are
//! gone are dropped, and it is rewritten when it was wrong. A torn tail or a damaged line costs reading one `meta.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use crate::clock::LAST_MS;
use crate::error::Failure;
use crate::fsio::{self, Durability};
use crate::seal;
use crate::state::MOST_BYTES;
use crate::store::{Store, meta};

/// No index is larger: 256 MiB, for half a million captures.
const MAX_FILE: u64 = 256 << 20;

/// No line is longer: it has a part of what is in a `meta.json`.
const MAX_LINE: u64 = 4 << 20;

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
    /// Why there is no data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
            disk_bytes: fsio::occupied_tree(&dir),
            pinned: dir.join(PIN_FILE).exists(),
        }
    }
}

/// What is in the store.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Every readable capture, oldest first.
    pub entries: Vec<Entry>,
    /// Captures whose `meta.json` cannot be read, with the reason.
    pub damaged: Vec<(String, String)>,
}

/// Reads the index, makes it agree with `reports/`, and writes it back if it did not and `write_back` allows it.
pub fn load(store: &Store, write_back: bool) -> Result<Index, Failure> {
    let (mut cached, lines) = cached(store);
    let reports = store.path("reports");
    let listing = match fsio::read_dir(&reports) {
        Err(e) if e.is_not_found() => return Ok(Index::default()),
        other => other?,
    };
    let present: BTreeSet<String> = listing
        .into_iter()
        // Whatever else is there, a symbolic link say, is none of ours.
        .filter(|entry| entry.kind.is_dir())
        .filter_map(|entry| entry.name.into_string().ok())
        .filter(|name| is_id(name))
        .collect();
    let before = cached.len();
    cached.retain(|id, _| present.contains(id));
    let mut index = Index::default();
    let mut learned = 0;
    for id in present {
        if let Some(entry) = cached.remove(&id) {
            index.entries.push(entry);
            continue;
        }
        match meta::read(&store.report_dir(&id)) {
            Ok(meta) => {
                learned += 1;
                index.entries.push(Entry::of(store, &meta));
            }
            // Deleted since the directory was read.
            Err(e) if e.is_not_found() && !store.report_dir(&id).exists() => {}
            Err(e) => index.damaged.push((id, e.message)),
        }
    }
    index.entries.sort_by(|a, b| a.sequence.cmp(&b.sequence).then_with(|| a.id.cmp(&b.id)));
    let stale = learned > 0 || before > index.entries.len() || lines > 2 * index.entries.len() + 100;
    if stale && write_back && store.is_ours() {
        rewrite(store, &index)?;
    }
    Ok(index)
}

fn cached(store: &Store) -> (BTreeMap<String, Entry>, usize) {
    let Ok(data) = fsio::read_bounded(&store.path("index.jsonl"), MAX_FILE) else { return Default::default() };
    parse(&data)
}

/// The entries that can be understood, and how many lines there are.
pub fn parse(data: &[u8]) -> (BTreeMap<String, Entry>, usize) {
    let mut entries = BTreeMap::new();
    let mut lines = 0;
    for line in data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        lines += 1;
        if let Some(entry) = understand(line) {
            entries.insert(entry.id.clone(), entry);
        }
    }
    (entries, lines)
}

fn understand(line: &[u8]) -> Option<Entry> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    (entry.is_plausible() && seal::is_whole(line)).then_some(entry)
}

/// What each capture occupies, as far as the index can be read. Takes a fraction of the memory of `load`.
pub fn sizes(store: &Store) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    let Ok(file) = fsio::open_read(&store.path("index.jsonl")) else { return sizes };
    if !file.metadata().is_ok_and(|meta| meta.len() <= MAX_FILE) {
        return sizes;
    }
    let mut file = BufReader::new(file.take(MAX_FILE));
    let mut line = Vec::new();
    // What goes on after the bound of a line is the next one, and damaged like this one.
    while file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if let Some(entry) = understand(line.trim_ascii_end()) {
            sizes.insert(entry.id, entry.disk_bytes);
        }
        line.clear();
    }
    sizes
}

// Under the lock, and with the lines that were added since the index was read: a pin or a capture of the last moment must
// not be lost.
fn rewrite(store: &Store, index: &Index) -> Result<(), Failure> {
    let _guard = store.lock()?;
    let (mut latest, _) = cached(store);
    let mut data = Vec::new();
    let mut write = |entry: &Entry| -> Result<(), Failure> {
        data.extend(line(entry)?);
        data.push(b'\n');
        Ok(())
    };
    for entry in &index.entries {
        write(latest.remove(&entry.id).as_ref().unwrap_or(entry))?;
    }
    for entry in latest.values().filter(|entry| store.report_dir(&entry.id).is_dir()) {
        write(entry)?;
    }
    fsio::write_atomic(&store.path("index.jsonl"), &data, Durability::Volatile)
}

/// Adds a line for a capture that was published or changed.
pub fn append(store: &Store, entry: &Entry) -> Result<(), Failure> {
    let line = line(entry)?;
    let _guard = store.lock()?;
    fsio::append_line(&store.path("index.jsonl"), &line, Durability::Volatile)
}

fn line(entry: &Entry) -> Result<Vec<u8>, Failure> {
    let json = serde_json::to_vec(entry).map_err(|e| Failure::failed(format!("cannot encode the index: {e}")))?;
    Ok(seal::seal(&json))
}

/// Whether a name has the form of a capture's id: `20261122T101530123Z-7f3a9c2e`.
pub fn is_id(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() == 28
        && bytes.iter().enumerate().all(|(i, b)| match i {
            8 => *b == b'T',
            18 => *b == b'Z',
            19 => *b == b'-',
            0..=17 => b.is_ascii_digit(),
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(b),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::Access;

    #[test]
    fn sizes_are_those_of_the_lines_that_can_be_understood() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&Config { dir: dir.path().join("store"), ..Config::default() }, Access::Create).unwrap();
        for (id, disk_bytes) in [("A", 1), ("B", 2), ("A", 3)] {
            append(&store, &Entry { id: id.into(), disk_bytes, ..Entry::default() }).unwrap();
        }
        let path = store.path("index.jsonl");
        let whole = std::fs::read(path.path()).unwrap();
        let expected = BTreeMap::from([("A".to_owned(), 3), ("B".to_owned(), 2)]);
        assert_eq!(sizes(&store), expected);
        std::fs::write(path.path(), [&whole[..], b"{\"check\":\"00000000\",\"id\":\"C\"}\n{\"id\":\"D"].concat())
            .unwrap();
        assert_eq!(sizes(&store), expected);
        // As large as one line may be, without an end: it costs what it holds.
        std::fs::write(
            path.path(),
            [vec![b'x'; 1 + usize::try_from(MAX_LINE).unwrap()], b"\n".to_vec(), whole].concat(),
        )
        .unwrap();
        assert_eq!(sizes(&store), expected);
    }

    #[test]
    fn only_the_form_of_an_id_is_an_id() {
        assert!(is_id("20261122T101530123Z-7f3a9c2e"));
        for bad in
            ["", "20261122T101530123Z-7F3A9C2E", "20261122T101530123Z-7f3a9c2e.x", "../../../etc/passwd/aaaaaaaa"]
        {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
