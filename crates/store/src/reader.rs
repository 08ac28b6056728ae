//! Reads captures back: resolves the id that a person typed, verifies reports, decrypts and decompresses them.
//!
//! A report is released only after the whole file has matched its recorded checksum. The output is never longer than the recorded
//! size, whatever the compressed data claims.

pub(crate) mod content;
mod export;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use content::Locked;

use crate::catalog::Catalog;
use crate::encryption::{self, Identities};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::index::{self, EntryReport, Present};
use crate::{Store, meta};
use diagctl_fs::{self as fs, printable};

/// Bytes per read.
const CHUNK: usize = 128 << 10;

/// Number of matching captures that are listed for an ambiguous prefix.
const CANDIDATES_SHOWN: usize = 5;

/// A capture, and one of its reports if the person named one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The capture's full id. The capture may be damaged.
    pub id: Id,
    /// The report.
    pub report: Option<String>,
}

/// Resolves `ID`, `PREFIX` or `latest`, each with an optional `:REPORT`. `latest:REPORT` is the newest capture with data of the
/// report. The other forms name the capture, and the report is taken from it.
pub fn resolve(store: &Store, text: &str) -> Result<Target> {
    let (name, report) = match text.split_once(':') {
        Some((name, report)) => (name, Some(report)),
        None => (text, None),
    };
    let id = match (name, report) {
        ("latest", Some(report)) => latest_with(store, report)?,
        ("latest", None) => latest(store)?,
        (prefix, _) => by_prefix(store, prefix)?,
    };
    Ok(Target { id, report: report.map(str::to_owned) })
}

fn latest(store: &Store) -> Result<Id> {
    match index::summary(store)?.latest {
        Some(entry) => Ok(entry.id),
        None => Err(Error::NoCaptures),
    }
}

fn latest_with(store: &Store, report: &str) -> Result<Id> {
    if let Some(id) = Catalog::current(store).and_then(|catalog| newest_with(&catalog, report)) {
        return Ok(id);
    }
    let (mut made, mut failed, mut known) = (None, None, BTreeSet::new());
    index::visit(store, &mut Present::list(store)?, |entry| {
        known.extend(entry.reports.iter().map(|r| r.name.clone()));
        let mut with_it = entry.reports.iter().filter(|r| r.name == report).peekable();
        if with_it.peek().is_some() {
            let newest = if with_it.any(EntryReport::has_data) { &mut made } else { &mut failed };
            index::keep_newest(newest, entry);
        }
    });
    if let Some(entry) = made {
        return Ok(entry.id);
    }
    let error = failed.as_ref().and_then(|entry| {
        let error = entry.reports.iter().filter(|r| r.name == report).find_map(|r| r.error.as_ref())?;
        Some((entry.id, error))
    });
    let report = match report {
        "" => return Err(Error::NoReportNamed),
        report => report.to_owned(),
    };
    Err(match error {
        Some((capture, error)) => Error::FailedEverywhere { report, capture, error: error.clone() },
        None => Error::NoCaptureWith { report, known: known.into_iter().collect() },
    })
}

fn newest_with(catalog: &Catalog, report: &str) -> Option<Id> {
    let mut newest = None;
    let whole = catalog.newest_first(|record| {
        newest = record.kinds().any(|(name, _)| name == report).then_some(record.id);
        newest.is_none()
    });
    newest.filter(|_| whole)
}

// Includes damaged captures, because `rm` and `verify` accept them.
fn by_prefix(store: &Store, prefix: &str) -> Result<Id> {
    if let Some(id) = Id::parse(prefix).filter(|id| store.report_dir(id).is_dir()) {
        return Ok(id);
    }
    let present = Present::list(store)?;
    let is_meant = |id: &Id| !prefix.is_empty() && id.as_str().starts_with(prefix);
    let matching: Vec<Id> = present.ids().rev().filter(is_meant).collect();
    match matching.as_slice() {
        [] => Err(Error::NoCapture { prefix: prefix.to_owned() }),
        [id] => Ok(*id),
        many => Err(Error::Ambiguous {
            prefix: prefix.to_owned(),
            count: many.len(),
            first: many.iter().take(CANDIDATES_SHOWN).copied().collect(),
        }),
    }
}

/// The open file of a report. Later changes of the store do not affect it.
#[derive(Debug)]
pub struct Stored {
    /// The capture that it belongs to.
    pub capture: Id,
    /// The report's entry in the capture's record.
    pub report: meta::Report,
    file: File,
    recipients: Vec<String>,
    identities: Option<Arc<Identities>>,
}

/// Returns the entry of a report by its name, even if the report failed.
pub fn report_of<'m>(meta: &'m meta::Meta, name: &str) -> Result<&'m meta::Report> {
    meta.reports.iter().find(|report| report.name == name).ok_or_else(|| {
        let has = meta.reports.iter().map(|report| report.name.clone()).collect();
        Error::NoReport { capture: meta.id, report: name.to_owned(), has }
    })
}

/// The form in which a report is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// Uncompressed, as it was produced.
    Content,
    /// Compressed, as it is stored.
    Stored,
}

/// The reason why a copy was interrupted.
#[derive(Debug)]
pub enum Interrupted {
    /// The report cannot be read, or differs from its record.
    Source(Error),
    /// The copy cannot be written.
    Output(io::Error),
}

impl Stored {
    /// Opens a report of a capture. If the report failed when the capture was taken, returns its error.
    pub fn open(store: &Store, meta: &meta::Meta, name: &str) -> Result<Self> {
        let report = report_of(meta, name)?;
        let Some(file) = &report.file else {
            let error = report.error.clone().unwrap_or_else(|| "no reason was recorded".into());
            return Err(Error::ReportFailed { capture: meta.id, report: report.name.clone(), error });
        };
        let file = fs::open_read(&store.report_dir(&meta.id).join(file))?;
        let (recipients, identities) = (meta.recipients.clone(), store.options().identities.clone());
        Ok(Self { capture: meta.id, report: report.clone(), file, recipients, identities })
    }

    /// Returns a warning if the content was damaged when it was produced.
    pub fn warning(&self) -> Option<String> {
        let error = self.report.error.as_ref()?;
        Some(format!(
            "report {} of capture {} was stored damaged: {}",
            self.report.name,
            self.capture,
            printable(error)
        ))
    }

    /// Returns the size of a form, bytes.
    pub fn bytes(&self, form: Representation) -> u64 {
        match form {
            Representation::Content => self.report.raw_bytes,
            Representation::Stored => self.report.stored_bytes,
        }
    }

    /// Returns the file name for a form: `heap_dump.json` or `heap_dump.json.gz`.
    pub fn file_name(&self, form: Representation) -> &str {
        let name = self.report.file.as_deref().unwrap_or(&self.report.name);
        let name = match form {
            Representation::Content if self.report.encryption.is_some() => {
                name.strip_suffix(encryption::SUFFIX).filter(|bare| !bare.is_empty()).unwrap_or(name)
            }
            _ => name,
        };
        let suffix = match (form, self.report.encoding.as_str()) {
            (Representation::Content, "gzip") => ".gz",
            (Representation::Content, "zstd") => ".zst",
            _ => "",
        };
        name.strip_suffix(suffix).filter(|bare| !bare.is_empty()).unwrap_or(name)
    }

    /// Reads the file to its end, but at most one byte more than `most`. Returns the SHA-256 and the number of bytes read.
    pub fn digest(&mut self, most: u64, progress: &mut dyn FnMut(u64)) -> io::Result<(String, u64)> {
        self.file.rewind()?;
        let mut file = (&self.file).take(most.saturating_add(1));
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut read = 0u64;
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&chunk[..n]);
                    read += n as u64;
                    progress(read);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.file.rewind()?;
        Ok((hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), read))
    }

    /// Reads the whole file and compares its size and checksum with the record. Must be called before [`Stored::copy`].
    pub fn verify(&mut self) -> Result<()> {
        let (found, read) = self
            .digest(self.report.stored_bytes, &mut |_| {})
            .map_err(|e| self.damaged(&format!("cannot be read: {e}")))?;
        if read != self.report.stored_bytes {
            let has = if read > self.report.stored_bytes { "more bytes".into() } else { format!("{read} bytes") };
            return Err(self.damaged(&format!("the file has {has} instead of {}", self.report.stored_bytes)));
        }
        match &self.report.sha256 {
            Some(recorded) if recorded.eq_ignore_ascii_case(&found) => Ok(()),
            Some(recorded) => {
                Err(self.damaged(&format!("the file has sha256 {found} instead of {}", printable(recorded))))
            }
            None => Err(self.damaged("no sha256 was recorded")),
        }
    }

    /// Writes the report to `out`, and calls `progress` with the number of bytes written so far. Returns the total.
    pub fn copy(
        &mut self,
        form: Representation,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> std::result::Result<u64, Interrupted> {
        let expected = self.bytes(form);
        let mut source = self.source(form)?;
        let mut chunk = vec![0; CHUNK];
        let mut written = 0u64;
        loop {
            let n = match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let why = format!("it cannot be decompressed after {written} of {expected} bytes: {e}");
                    return Err(Interrupted::Source(self.damaged(&why)));
                }
            };
            if written + n as u64 > expected {
                let why = format!("it decompresses to more than the {expected} bytes that were recorded");
                return Err(Interrupted::Source(self.damaged(&why)));
            }
            out.write_all(&chunk[..n]).map_err(Interrupted::Output)?;
            written += n as u64;
            progress(written);
        }
        if written != expected {
            let why = format!("it decompresses to {written} bytes instead of {expected}");
            return Err(Interrupted::Source(self.damaged(&why)));
        }
        Ok(written)
    }

    // Opens the file as a stream of one form.
    fn source(&self, form: Representation) -> std::result::Result<Box<dyn Read + Send + '_>, Interrupted> {
        let file = io::BufReader::with_capacity(CHUNK, &self.file);
        match form {
            Representation::Stored => Ok(Box::new(file)),
            Representation::Content => self.locked().open(file).map_err(Interrupted::Source),
        }
    }

    fn locked(&self) -> Locked<'_> {
        let Self { capture, report, recipients, identities, .. } = self;
        Locked { capture: *capture, report, recipients, identities: identities.as_deref() }
    }

    /// Returns the reason why the content cannot be read, if it is encrypted and there are no identities at all.
    pub fn lock(&self) -> Option<Error> {
        (self.report.encryption.is_some() && self.identities.is_none()).then(|| self.locked().encrypted())
    }

    fn damaged(&self, why: &str) -> Error {
        Error::DamagedReport { capture: self.capture, report: self.report.name.clone(), why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests;
