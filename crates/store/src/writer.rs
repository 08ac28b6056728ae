//! Writes reports into a staged capture: compresses the data while it is produced, hashes it, and keeps the store under its cap.

mod heap;

use std::fs::File;
use std::io::{self, Read, Write};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::inventory::{self, Inventory};
use crate::layout::{CATALOG, INDEX};
use crate::options::Compression;
use crate::report_kind::{FileType, HEAP_GRAPH};
use crate::report_name::ReportName;
use crate::staging::{self, Grant};
use crate::{Store, cleanup, meta};
use diagctl_fs::{self as fs, Spot};
use diagctl_heapdump::lines::HeapLines;
use diagctl_observe::clock::Reading;

/// zlib-rs at level 2 compresses a heap dump as well as `gzip -1`, in a third of its CPU time.
const GZIP_LEVEL: u32 = 2;

/// zstd at level 1 compresses as well as gzip at level 6, and is faster than gzip at level 1.
const ZSTD_LEVEL: i32 = 1;

/// Bytes read from a producer at once.
pub const CHUNK: usize = 256 << 10;

/// Minimum amount of room that is made at the cap, bytes. Prevents a round of deletions for every block.
const ROOM_STEP: u64 = 8 << 20;

/// Growth of the store's small files while a capture is written, bytes: records, events and samples, each with its temporary
/// replacement. The index and the catalog are added to this, because each may exist twice for a moment.
const BOOKKEEPING: u64 = 64 << 10;

/// The space that is left below the cap. All reports of a capture share it.
pub struct Room<'a> {
    store: &'a Store,
    grant: &'a Grant,
    /// Read only when the cap is reached.
    inventory: Option<Inventory>,
    /// Disk usage of everything but this capture, bytes.
    others: u64,
    left: u64,
    /// Bytes to take before `left` is measured again, because other writers of this capture take from the same room.
    allowance: u64,
}

impl<'a> Room<'a> {
    /// Computes the room of a granted capture. Uses the disk usage in the grant, and does not open the index.
    pub fn of(store: &'a Store, grant: &'a Grant) -> Result<Self> {
        let mut room = Self { store, grant, inventory: None, others: 0, left: 0, allowance: 0 };
        let captures = match grant.reports_bytes {
            Some(bytes) => bytes,
            None => room.inventory()?.reports_bytes(),
        };
        room.measure_others(captures);
        Ok(room)
    }

    fn cap(&self) -> u64 {
        self.store.options().retention.max_use
    }

    // Does not write the index, because a `put` at the cap has no room for a second one.
    fn inventory(&mut self) -> Result<&mut Inventory> {
        match self.inventory.take() {
            Some(inventory) => Ok(self.inventory.insert(inventory)),
            None => Ok(self.inventory.insert(Inventory::load(self.store, false)?)),
        }
    }

    fn measure_others(&mut self, captures: u64) {
        let used = captures.saturating_add(inventory::other_bytes(self.store)).saturating_add(self.reserved());
        self.others = used.saturating_sub(self.staged());
        self.measure();
    }

    fn measure(&mut self) {
        self.left = self.cap().saturating_sub(self.others).saturating_sub(self.staged());
        self.allowance = ROOM_STEP.min(self.left / 8);
    }

    fn staged(&self) -> u64 {
        fs::occupied_tree(&self.store.staging(&self.grant.meta.id))
    }

    fn reserved(&self) -> u64 {
        let caches = [INDEX, CATALOG].map(|name| fs::occupied_tree(&self.store.path(name)));
        BOOKKEEPING + caches.iter().sum::<u64>()
    }

    /// Makes room for `bytes` by deleting unprotected captures.
    pub fn make(&mut self, bytes: u64) -> Result<()> {
        let (store, grant) = (self.store, self.grant);
        // A staged capture does not outlive a boot, so the time since the grant is a difference of boot times.
        let since = Reading::take(String::new()).boot_ms.saturating_sub(grant.granted_boot_ms);
        cleanup::make_room(store, grant.meta.store_ms + since, self.inventory()?, bytes)
    }

    // Takes bytes out of the room. Makes more room first if there is not enough.
    fn take(&mut self, bytes: u64) -> Result<()> {
        // Asks for a generous amount first. If the cap is too small for that, asks only for the bytes needed.
        let cap = self.cap();
        if bytes > self.allowance {
            self.measure();
        }
        for wanted in [bytes.max(ROOM_STEP.min(cap / 8)), bytes] {
            if bytes > self.left {
                self.make(wanted + self.reserved())?;
                let captures = self.inventory()?.reports_bytes();
                self.measure_others(captures);
            }
        }
        if bytes > self.left {
            return Err(Error::AtCap { cap });
        }
        self.left -= bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
        Ok(())
    }
}

/// Reads a report to its end, compresses it into the staging directory and writes its sidecar for `finalize`. A failed report
/// leaves no file, only a sidecar with the reason. An empty report is a failure: its producer died early, or looked at a process
/// that had ended.
pub fn store_report(
    room: &mut Room<'_>,
    staging: &Spot,
    name: &ReportName,
    data: &mut dyn Read,
) -> Result<meta::Report> {
    let form = room.store.options().file_type(name);
    store(room, staging, name, &form, data, false)
}

/// Does the same for content of a known file type, which may be empty.
pub fn store_as(
    room: &mut Room<'_>,
    staging: &Spot,
    name: &ReportName,
    form: &FileType,
    data: &mut dyn Read,
) -> Result<meta::Report> {
    store(room, staging, name, form, data, true)
}

fn store(
    room: &mut Room<'_>,
    staging: &Spot,
    name: &ReportName,
    form: &FileType,
    data: &mut dyn Read,
    may_be_empty: bool,
) -> Result<meta::Report> {
    let partial = staging::partial(staging, name);
    let mut result = write_report(room, staging, &partial, name, form, data, may_be_empty);
    if let Err(error) = &mut result {
        // Readers do not know the staging file, so the error names the report instead.
        if let Some(source) = error.fs().and_then(fs::Error::os).filter(|_| error.is_no_space()) {
            *error = Error::DiskFull { report: name.clone(), source: copy(source) };
        }
        let _ = fs::remove_file(&partial);
        // A producer that died has not said why. Whoever ends the capture knows, or says that the report was not delivered, as
        // also if the sidecar cannot be written.
        if error.is_cut_short() {
            return result;
        }
        let _ = staging::write_sidecar(staging, &meta::Report::failed(name.clone(), error.to_string()));
    }
    result
}

fn write_report(
    room: &mut Room<'_>,
    staging: &Spot,
    partial: &Spot,
    name: &ReportName,
    form: &FileType,
    data: &mut dyn Read,
    may_be_empty: bool,
) -> Result<meta::Report> {
    let is_heap = *name == "heap_dump" && *form == room.store.options().file_type(name);
    let with_values = room.store.options().heap_values;
    let ruby = room.grant.meta.versions.get("ruby").cloned().unwrap_or_default();
    let compression = room.store.options().retention.compression;
    let (suffix, encoding) = match compression {
        Compression::Gzip => ("gz", "gzip"),
        Compression::Zstd => ("zst", "zstd"),
    };
    let file = fs::create_new(partial)?;
    fs::widen_like_parent(&file, partial)?;
    let sink = Sink { file, spot: partial.clone(), hash: Sha256::new(), written: 0, room };
    let mut encoder = match compression {
        Compression::Gzip => Encoder::Gzip(GzEncoder::new(sink, flate2::Compression::new(GZIP_LEVEL))),
        Compression::Zstd => Encoder::Zstd(
            zstd::stream::write::Encoder::new(sink, ZSTD_LEVEL)
                .map_err(|e| Error::io("compress into", partial.path(), e))?,
        ),
    };
    // A file of that name that a command wrote is stored as it is.
    let content = if *name == "heap_summary" && !may_be_empty {
        heap_summary(data, name, form, &ruby, &mut encoder, partial)?
    } else if is_heap && !with_values {
        heap_graph(data, name, &ruby, &mut encoder, partial)?
    } else {
        plain(data, name, form, is_heap, &mut encoder, partial)?
    };
    if content.input_bytes == 0 && !may_be_empty {
        return Err(Error::EmptyReport { report: name.clone() });
    }
    let sink = encoder.finish().map_err(|e| unwrap(e, partial))?;
    let file = put_in_place(staging, partial, name, &format!("{}.{suffix}", content.form.extension))?;
    let report = meta::Report {
        name: name.clone(),
        file: Some(file),
        content_type: content.form.content_type,
        encoding: encoding.to_owned(),
        raw_bytes: content.raw_bytes,
        stored_bytes: sink.written,
        sha256: Some(hex(&sink.hash.finalize())),
        error: content.error,
        heap: content.heap,
        took_ms: None,
        note: None,
    };
    staging::write_sidecar(staging, &report)?;
    Ok(report)
}

/// The result of writing a report.
struct Content {
    form: FileType,
    /// Bytes from the producer, and bytes that were compressed.
    input_bytes: u64,
    raw_bytes: u64,
    error: Option<String>,
    heap: Option<meta::Heap>,
}

// Writes a report as it is. A heap dump is checked.
fn plain<W: Write>(
    data: &mut dyn Read,
    name: &ReportName,
    form: &FileType,
    is_heap: bool,
    encoder: &mut Encoder<W>,
    partial: &Spot,
) -> Result<Content> {
    let mut lines = is_heap.then(HeapLines::default);
    let mut raw_bytes = 0u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        match data.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => {
                if let Some(lines) = &mut lines {
                    lines.feed(&chunk[..n]);
                }
                encoder.write_all(&chunk[..n]).map_err(|e| unwrap(e, partial))?;
                raw_bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::Producer { report: name.clone(), source: e }),
        }
    }
    let heap = is_heap.then(|| meta::Heap::json("dump_all"));
    let error = lines.and_then(HeapLines::finish);
    Ok(Content { form: form.clone(), input_bytes: raw_bytes, raw_bytes, error, heap })
}

// Writes a heap dump as a graph.
fn heap_graph<W: Write>(
    data: &mut dyn Read,
    name: &ReportName,
    ruby: &str,
    encoder: &mut Encoder<W>,
    partial: &Spot,
) -> Result<Content> {
    let stored = heap::store(data, ruby, encoder).map_err(|failure| match failure {
        heap::Failure::Input(source) => Error::Producer { report: name.clone(), source },
        heap::Failure::Output(error) => unwrap(error, partial),
    })?;
    let form = FileType { extension: HEAP_GRAPH.0.into(), content_type: HEAP_GRAPH.1.into() };
    Ok(Content {
        form,
        input_bytes: stored.input_bytes,
        raw_bytes: stored.bytes,
        error: stored.error,
        heap: Some(meta::Heap::graph(stored.producer, stored.lost, stored.repaired)),
    })
}

// Writes the summary of a heap dump, and nothing else of it.
fn heap_summary<W: Write>(
    data: &mut dyn Read,
    name: &ReportName,
    form: &FileType,
    ruby: &str,
    encoder: &mut Encoder<W>,
    partial: &Spot,
) -> Result<Content> {
    let summarized = heap::summarize(data, ruby).map_err(|e| Error::Producer { report: name.clone(), source: e })?;
    let json = serde_json::to_vec(&summarized.summary).map_err(Error::encode("the summary of a heap"))?;
    encoder.write_all(&json).map_err(|e| unwrap(e, partial))?;
    let (raw_bytes, input_bytes, error) = (json.len() as u64, summarized.input_bytes, summarized.error);
    Ok(Content { form: form.clone(), input_bytes, raw_bytes, error, heap: None })
}

// A command of `diagctl run` may have written a file of this name, for example `a.txt.gz` beside the `a.txt` that became this
// report. That file becomes a report of its own, so this one gets another name.
fn put_in_place(staging: &Spot, partial: &Spot, name: &ReportName, extension: &str) -> Result<String> {
    let mut file = format!("{name}.{extension}");
    let mut number = 1;
    loop {
        match fs::rename_noreplace(partial, &staging.join(&file)) {
            Err(e) if e.is_existing() => number += 1,
            other => return Ok(other.map(|()| file)?),
        }
        file = format!("{name}_{number}.{extension}");
    }
}

/// Returns the SHA-256 of a file in hexadecimal, and its length in bytes.
pub fn hash_file(spot: &Spot) -> Result<(String, u64)> {
    let mut file = fs::open_read(spot)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut length = 0;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hex(&hash.finalize()), length)),
            Ok(n) => {
                hash.update(&chunk[..n]);
                length += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", spot.path(), e)),
        }
    }
}

/// Formats bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

enum Encoder<W: Write> {
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    // Writes the trailer, which may fail. Dropping the encoder would lose that error.
    fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

struct Sink<'r, 'a> {
    file: File,
    spot: Spot,
    hash: Sha256,
    written: u64,
    room: &'r mut Room<'a>,
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let grown = fs::occupied(self.written + data.len() as u64) - fs::occupied(self.written);
        self.room.take(grown).map_err(io::Error::other)?;
        let n = match self.file.write(data) {
            Err(e) if fs::Error::io("write", self.spot.path(), copy(&e)).is_no_space() => {
                // Makes room once. If the disk is still full, the write fails.
                self.room.make(ROOM_STEP).map_err(io::Error::other)?;
                self.file.write(data)?
            }
            other => other?,
        };
        self.hash.update(&data[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

// Recovers an error of the room, which passes through the encoder inside an io::Error.
fn unwrap(error: io::Error, spot: &Spot) -> Error {
    match error.downcast::<Error>() {
        Ok(failure) => failure,
        Err(error) => Error::io("write", spot.path(), error),
    }
}

#[cfg(test)]
mod tests;
