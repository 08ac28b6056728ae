//! Writes reports into a staged capture: compresses and encrypts the data while it is produced, hashes it, and keeps the store
//! under its cap.

mod heap;
mod room;
mod sink;

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

pub use room::Room;
use sink::{Encoder, Sink, Target, copy, unwrap};

use crate::encryption;
use crate::error::{Error, Result};
use crate::options::Compression;
use crate::report_kind::{FileType, HEAP_GRAPH, HEAP_SUMMARY};
use crate::report_name::ReportName;
use crate::{meta, staging};
use diagctl_fs::{self as fs, Spot};
use diagctl_heapdump::lines::HeapLines;
use diagctl_heapdump::summary::Summary;

/// Bytes read from a producer at once.
pub const CHUNK: usize = 256 << 10;

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
    let (report, summary) = store(room, staging, name, &form, data, Origin::Producer)?;
    if let Some(summary) = summary {
        put_beside(room, staging, &summary);
    }
    Ok(report)
}

// Stores the summary of a heap dump as a report of its own, which costs the dumper nothing. The dump does not depend on it.
fn put_beside(room: &mut Room<'_>, staging: &Spot, summary: &Summary) {
    let name = ReportName::from_text(HEAP_SUMMARY);
    if room.grant.planned.contains(&name) {
        return;
    }
    let form = room.store.options().file_type(&name);
    let json = serde_json::to_vec(summary).ok();
    let stored = json.map(|json| store(room, staging, &name, &form, &mut &json[..], Origin::Dump));
    if !matches!(stored, Some(Ok(_))) {
        let _ = staging::release(staging, &name);
    }
}

/// Does the same for content of a known file type, which may be empty. At its end `cut_off` returns the reason why it is not whole, if
/// it is not: then the report is stored as far as it goes, with that error.
pub fn store_as(
    room: &mut Room<'_>,
    staging: &Spot,
    name: &ReportName,
    form: &FileType,
    data: &mut dyn Read,
    cut_off: &dyn Fn() -> Option<String>,
) -> Result<meta::Report> {
    store(room, staging, name, form, data, Origin::Command(cut_off)).map(|(report, _)| report)
}

/// Where the data of a report comes from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// A producer, whose reports are never empty.
    Producer,
    /// A command, whose reports may be empty, and the reason why its output is not whole.
    Command(&'a dyn Fn() -> Option<String>),
    /// The heap dump of the same capture, while it was stored: the data is a summary already.
    Dump,
}

fn store(
    room: &mut Room<'_>,
    staging: &Spot,
    name: &ReportName,
    form: &FileType,
    data: &mut dyn Read,
    origin: Origin<'_>,
) -> Result<(meta::Report, Option<Summary>)> {
    let partial = staging::partial(staging, name);
    let mut result = write_report(room, staging, &partial, name, form, data, origin);
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
    origin: Origin<'_>,
) -> Result<(meta::Report, Option<Summary>)> {
    let is_heap = *name == "heap_dump" && *form == room.store.options().file_type(name);
    let with_values = room.store.options().heap_values;
    let ruby = room.grant.meta.versions.get("ruby").cloned().unwrap_or_default();
    let is_graph = is_heap && !with_values;
    let compression = if is_graph { Compression::Zstd } else { room.store.options().retention.compression };
    let (suffix, encoding) = match compression {
        Compression::Gzip => ("gz", "gzip"),
        Compression::Zstd => ("zst", "zstd"),
    };
    let file = fs::create_new(partial)?;
    fs::widen_like_parent(&file, partial)?;
    let grant = room.grant;
    let encryption = grant.encryption.as_deref().filter(|encryption| encryption.covers(name));
    let sink = Target::new(Sink::new(file, partial, room), name, encryption)?;
    let mut encoder =
        if is_graph { Encoder::for_graph(partial, sink)? } else { Encoder::new(compression, partial, sink)? };
    // Whoever wrote it: this report may be stored in plain where heap dumps are encrypted.
    let content = if *name == HEAP_SUMMARY && !matches!(origin, Origin::Dump) {
        heap_summary(data, name, form, &ruby, &mut encoder, partial)?
    } else if is_graph {
        heap_graph(data, name, &ruby, &mut encoder, partial)?
    } else {
        plain(data, name, form, is_heap, &mut encoder, partial)?
    };
    if content.input_bytes == 0 && matches!(origin, Origin::Producer) {
        return Err(Error::EmptyReport { report: name.clone() });
    }
    let cut_off = match origin {
        Origin::Command(cut_off) => cut_off(),
        Origin::Producer | Origin::Dump => None,
    };
    let (stored_bytes, sha256) = encoder.finish().and_then(Target::finish).map_err(|e| unwrap(e, partial))?;
    let encrypted = if encryption.is_some() { encryption::SUFFIX } else { "" };
    let file = put_in_place(staging, partial, name, &format!("{}.{suffix}{encrypted}", content.form.extension))?;
    let report = meta::Report {
        name: name.clone(),
        file: Some(file),
        content_type: content.form.content_type,
        encoding: encoding.to_owned(),
        encryption: encryption.map(|_| encryption::AGE.to_owned()),
        raw_bytes: content.raw_bytes,
        stored_bytes,
        sha256: Some(sha256),
        error: cut_off.or(content.error),
        heap: content.heap,
        took_ms: None,
        note: None,
    };
    staging::write_sidecar(staging, &report)?;
    Ok((report, content.summary))
}

/// The result of writing a report.
struct Content {
    form: FileType,
    /// Bytes from the producer, and bytes that were compressed.
    input_bytes: u64,
    raw_bytes: u64,
    error: Option<String>,
    heap: Option<meta::Heap>,
    /// The summary of a heap dump.
    summary: Option<Summary>,
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
    Ok(Content { form: form.clone(), input_bytes: raw_bytes, raw_bytes, error, heap, summary: None })
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
        summary: stored.summary,
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
    if summarized.input_bytes == 0 {
        return Err(Error::EmptyReport { report: name.clone() });
    }
    if summarized.summary.objects.count == 0 {
        return Err(Error::NoHeapDump { report: name.clone() });
    }
    let json = serde_json::to_vec(&summarized.summary).map_err(Error::encode("the summary of a heap"))?;
    encoder.write_all(&json).map_err(|e| unwrap(e, partial))?;
    let (raw_bytes, input_bytes, error) = (json.len() as u64, summarized.input_bytes, summarized.error);
    Ok(Content { form: form.clone(), input_bytes, raw_bytes, error, heap: None, summary: None })
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

#[cfg(test)]
mod tests;
