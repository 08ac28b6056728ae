//! The content of a report's file: decrypted, then decompressed.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::CHUNK;
use crate::encryption::{self, Identities, Undecryptable};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::Report;

/// A report, and what is needed to read it.
pub(crate) struct Locked<'a> {
    /// The capture that it belongs to.
    pub(crate) capture: Id,
    /// Its entry.
    pub(crate) report: &'a Report,
    /// The recipients of the capture, for messages.
    pub(crate) recipients: &'a [String],
    /// The identities of the person who reads.
    pub(crate) identities: Option<&'a Identities>,
}

impl Locked<'_> {
    /// Opens the content of the report, whose file is `file`.
    pub(crate) fn open<'f>(&self, file: impl BufRead + Send + 'f) -> Result<Box<dyn Read + Send + 'f>> {
        match self.report.encryption.as_deref() {
            None => self.decompressed(file),
            Some(encryption::AGE) => {
                let identities = self.identities.ok_or_else(|| self.encrypted())?;
                let content = encryption::decrypt(file, identities).map_err(|e| self.failure(e, identities))?;
                self.decompressed(BufReader::with_capacity(CHUNK, content))
            }
            Some(other) => {
                let (capture, report) = (self.capture, self.report.name.clone());
                Err(Error::UnknownEncryption { capture, report, encryption: other.to_owned() })
            }
        }
    }

    fn decompressed<'f>(&self, file: impl BufRead + Send + 'f) -> Result<Box<dyn Read + Send + 'f>> {
        Ok(match self.report.encoding.as_str() {
            "" | "identity" => Box::new(file),
            "gzip" => Box::new(MultiGzDecoder::new(file)),
            "zstd" => match zstd::stream::read::Decoder::with_buffer(file) {
                Ok(decoder) => Box::new(decoder),
                Err(e) => return Err(self.damaged(format!("it cannot be decompressed: {e}"))),
            },
            other => {
                let (capture, report) = (self.capture, self.report.name.clone());
                return Err(Error::UnknownEncoding { capture, report, encoding: other.to_owned() });
            }
        })
    }

    pub(super) fn encrypted(&self) -> Error {
        let recipients = self.recipients.to_vec();
        Error::Encrypted { capture: self.capture, report: self.report.name.clone(), recipients }
    }

    fn failure(&self, failure: Undecryptable, identities: &Identities) -> Error {
        match failure {
            Undecryptable::NoIdentityMatches => Error::NoIdentityMatches {
                identities: identities.source().to_owned(),
                capture: self.capture,
                report: self.report.name.clone(),
                recipients: self.recipients.to_vec(),
            },
            other => self.damaged(format!("it cannot be decrypted: {other}")),
        }
    }

    fn damaged(&self, why: String) -> Error {
        Error::DamagedReport { capture: self.capture, report: self.report.name.clone(), why }
    }
}
