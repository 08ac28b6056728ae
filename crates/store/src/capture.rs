//! Reads a published capture: its record, and its reports, which are verified while they are read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diagctl_fs::printable;
use sha2::{Digest, Sha256};

use crate::encryption::Identities;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::{self, Meta, Report};
use crate::reader::content::Locked;
use crate::{Store, reader, writer};

/// A published capture.
#[derive(Debug)]
pub struct Capture {
    store: Store,
    meta: Meta,
}

impl Store {
    /// Opens a published capture.
    ///
    /// # Errors
    ///
    /// [`Error::NoCapture`] if no capture has this id, [`Error::DamagedMeta`] if its record cannot be parsed.
    pub fn capture(&self, id: &Id) -> Result<Capture> {
        let meta = meta::read(&self.report_dir(id)).map_err(|error| match error {
            error if error.is_not_found() => Error::NoCapture { prefix: id.to_string() },
            other => other,
        })?;
        Ok(Capture { store: self.clone(), meta })
    }
}

impl Capture {
    /// Returns the capture's record.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Opens the content of a report, decrypted and decompressed.
    ///
    /// The content is verified only when it has been read to its end. If its length or checksum differs from the record, reading
    /// ends with an [`io::Error`] that holds an [`Error::DamagedReport`], never with an ordinary end of file.
    ///
    /// # Errors
    ///
    /// [`Error::NoReport`] if the capture has no such report, [`Error::ReportFailed`] if the report failed,
    /// [`Error::UnknownEncoding`] if its encoding is not supported, [`Error::Encrypted`] if it takes an identity to read it, and
    /// [`Error::NoIdentityMatches`] if it is encrypted to others.
    pub fn reader(&self, name: &str) -> Result<ReportReader> {
        let report = reader::report_of(&self.meta, name)?;
        let Some(file) = &report.file else {
            let error = report.error.clone().unwrap_or_else(|| "no reason was recorded".into());
            return Err(Error::ReportFailed { capture: self.meta.id, report: report.name.clone(), error });
        };
        let file = diagctl_fs::open_read(&self.store.report_dir(&self.meta.id).join(file))?;
        ReportReader::new(&self.meta, report.clone(), file, self.store.options().identities.as_deref())
    }
}

/// The content of a report. See [`Capture::reader`].
pub struct ReportReader {
    capture: Id,
    report: Report,
    file: Shared,
    source: Box<dyn Read + Send>,
    /// Number of bytes of content read so far.
    read: u64,
}

// A file that is hashed while it is read.
struct Hashed {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Read for Hashed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.hash.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

/// The file, which the decoders read, and which must be read to its end when they fail.
#[derive(Clone)]
struct Shared(Arc<Mutex<Hashed>>);

impl Shared {
    // Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Hashed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Returns the problem with the file. The checksum is compared first, because a damaged file may decompress to anything.
    fn flaw(&self, report: &Report, of_content: Option<String>) -> Option<String> {
        let mut file = self.lock();
        if let Err(e) = io::copy(&mut *file, &mut io::sink()) {
            return Some(format!("it cannot be read: {e}"));
        }
        let (found, bytes, recorded) = (writer::hex(&file.hash.clone().finalize()), file.bytes, report.stored_bytes);
        match &report.sha256 {
            _ if bytes != recorded => Some(format!("the file has {bytes} bytes, {recorded} were recorded")),
            None => Some("no sha256 was recorded".to_owned()),
            Some(sha256) if !sha256.eq_ignore_ascii_case(&found) => {
                Some(format!("the file has sha256 {found}, {} was recorded", printable(sha256)))
            }
            Some(_) => of_content,
        }
    }
}

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buf)
    }
}

impl ReportReader {
    fn new(meta: &Meta, report: Report, file: File, identities: Option<&Identities>) -> Result<Self> {
        let file = Shared(Arc::new(Mutex::new(Hashed { file, hash: Sha256::new(), bytes: 0 })));
        let locked = Locked { capture: meta.id, report: &report, recipients: &meta.recipients, identities };
        let source = match locked.open(BufReader::with_capacity(writer::CHUNK, file.clone())) {
            Ok(source) => source,
            // A damaged header matches no identity either.
            Err(failure) if report.encryption.is_some() && identities.is_some() => {
                return Err(file.flaw(&report, None).map_or(failure, |why| damaged(meta.id, &report, why)));
            }
            Err(failure) => return Err(failure),
        };
        Ok(Self { capture: meta.id, report, file, source, read: 0 })
    }

    fn fail(&mut self, of_content: String) -> io::Error {
        let why = self.file.flaw(&self.report, Some(of_content)).unwrap_or_default();
        io::Error::new(io::ErrorKind::InvalidData, damaged(self.capture, &self.report, why))
    }
}

impl Read for ReportReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.source.read(buf);
        let recorded = self.report.raw_bytes;
        match result {
            Ok(0) if !buf.is_empty() => {
                let read = self.read;
                let short =
                    (read != recorded).then(|| format!("it has {read} bytes of content, {recorded} were recorded"));
                match self.file.flaw(&self.report, short) {
                    Some(why) => {
                        Err(io::Error::new(io::ErrorKind::InvalidData, damaged(self.capture, &self.report, why)))
                    }
                    None => Ok(0),
                }
            }
            Ok(n) if self.read + n as u64 > recorded => {
                Err(self.fail(format!("it decompresses to more than the {recorded} bytes that were recorded")))
            }
            Ok(n) => {
                self.read += n as u64;
                Ok(n)
            }
            // An error of the disk says nothing about the report.
            Err(e) if e.kind() == io::ErrorKind::Interrupted || e.raw_os_error().is_some() => Err(e),
            Err(e) => {
                let read = self.read;
                Err(self.fail(format!("it cannot be decompressed after {read} of {recorded} bytes: {e}")))
            }
        }
    }
}

fn damaged(capture: Id, report: &Report, why: String) -> Error {
    Error::DamagedReport { capture: capture.to_owned(), report: report.name.clone(), why }
}

#[cfg(test)]
mod tests;
