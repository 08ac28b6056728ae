//! Sends one file of a capture. A large file goes in parts, of which the journal keeps track; the memory that it takes does not
//! depend on its size.

use std::fs::File;
use std::io::Read;

use bytes::Bytes;
use diagctl_store::{Id, writer};
use futures_util::StreamExt;
use futures_util::stream;
use sha2::{Digest, Sha256};

use crate::bucket::{self, Bucket};
use crate::directory;
use crate::error::{Error, Result};
use crate::journal::{Journal, Upload};
use crate::throttle::Throttle;

/// Number of parts on the way at once. With parts of 8 MiB (or more for a huge file), 16 MiB wait for the remote.
const AT_ONCE: usize = 2;

/// The most parts that S3 takes, less a margin.
const MOST_PARTS: u64 = 9_000;

/// A file of a capture, open, so that retention cannot take it away.
#[derive(Debug)]
pub struct Source {
    /// The capture.
    pub capture: Id,
    /// The report.
    pub report: String,
    /// The object.
    pub key: String,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// The file, at its start.
    pub file: File,
}

/// Everything that an upload needs.
#[derive(Debug)]
pub struct Uploader<'a> {
    /// The remote.
    pub bucket: &'a Bucket,
    /// Its URL.
    pub url: &'a str,
    /// The journal.
    pub journal: &'a Journal,
    /// The bandwidth.
    pub throttle: &'a mut Throttle,
}

impl Uploader<'_> {
    /// Sends a file. Nothing is left in the remote if the file does not match its record.
    pub async fn send(&mut self, source: &mut Source) -> Result<()> {
        let part_bytes = self.throttle.part_bytes().max(source.bytes.div_ceil(MOST_PARTS));
        match self.bucket {
            Bucket::Directory(dir) => return self.copy(&directory::require(dir)?.join(&source.key), source),
            Bucket::Cloud { .. } if source.bytes > part_bytes => {}
            Bucket::Cloud { .. } => {
                let data = source.next(source.bytes)?;
                let mut hash = Sha256::new();
                hash.update(&data);
                source.judge(hash)?;
                self.throttle.wait(source.bytes).await;
                return self.bucket.put(&source.key, data).await;
            }
        }
        let begun = self.journal.read(source.capture).filter(|upload| upload.is_of(self.url, source));
        let upload = match begun {
            Some(upload) => upload,
            None => self.begin(source, part_bytes).await?,
        };
        match self.send_parts(source, upload).await {
            // Another shipper has completed one of this object, or a lifecycle rule has aborted it.
            Err(e) if bucket::is_gone(&e) => {
                source.rewind()?;
                let upload = self.begin(source, part_bytes).await?;
                self.send_parts(source, upload).await
            }
            done => done,
        }
    }

    async fn begin(&self, source: &Source, part_bytes: u64) -> Result<Upload> {
        let upload_id = self.bucket.begin(&source.key).await?;
        let (url, key, bytes) = (self.url.to_owned(), source.key.clone(), source.bytes);
        let upload = Upload { schema: 1, url, key, upload_id, bytes, part_bytes, parts: Vec::new() };
        self.journal.write(source.capture, &upload)?;
        Ok(upload)
    }

    async fn send_parts(&mut self, source: &mut Source, mut upload: Upload) -> Result<()> {
        let mut hash = Sha256::new();
        for _ in 0..upload.parts.len() {
            hash.update(&source.next(upload.part_bytes)?);
        }
        let count = usize::try_from(source.bytes.div_ceil(upload.part_bytes)).unwrap_or(usize::MAX);
        while upload.parts.len() < count {
            let first = upload.parts.len();
            let mut batch = Vec::new();
            for number in first..count.min(first + AT_ONCE) {
                let data = source.next(upload.part_bytes)?;
                hash.update(&data);
                batch.push((number, data));
            }
            let sent: u64 = batch.iter().map(|(_, data)| data.len() as u64).sum();
            self.throttle.wait(sent).await;
            let (bucket, key, id) = (self.bucket, &upload.key, &upload.upload_id);
            let parts = batch.into_iter().map(|(number, data)| bucket.put_part(key, id, number, data));
            let done: Vec<Result<String>> = stream::iter(parts).buffered(AT_ONCE).collect().await;
            for part in done {
                upload.parts.push(part?);
            }
            self.journal.write(source.capture, &upload)?;
        }
        if let Err(damaged) = source.judge(hash) {
            self.bucket.abort(&upload.key, &upload.upload_id).await?;
            self.journal.remove(source.capture)?;
            return Err(damaged);
        }
        self.bucket.complete(&upload.key, &upload.upload_id, &upload.parts, source.bytes).await?;
        self.journal.remove(source.capture)
    }

    fn copy(&self, path: &std::path::Path, source: &mut Source) -> Result<()> {
        struct Hashed<'f>(&'f mut File, &'f std::cell::RefCell<Sha256>);
        impl Read for Hashed<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let read = self.0.read(buffer)?;
                self.1.borrow_mut().update(&buffer[..read]);
                Ok(read)
            }
        }
        let mut file = source.file.try_clone().map_err(|e| source.unreadable(e))?;
        // The file is renamed only after what was read has been judged. Then it is read back.
        let hash = std::cell::RefCell::new(Sha256::new());
        directory::copy(path, &mut Hashed(&mut file, &hash), |_| source.judge(hash.take()))?;
        let mut written = File::open(path).map_err(|e| source.unreadable(e))?;
        std::io::copy(&mut Hashed(&mut written, &hash), &mut std::io::sink()).map_err(|e| source.unreadable(e))?;
        source.judge(hash.take())
    }
}

impl Upload {
    fn is_of(&self, url: &str, source: &Source) -> bool {
        self.url == url && self.key == source.key && self.bytes == source.bytes && self.part_bytes > 0
    }
}

impl Source {
    // Reads so many bytes, or what is left.
    fn next(&mut self, bytes: u64) -> Result<Bytes> {
        let mut data = Vec::with_capacity(usize::try_from(bytes.min(self.bytes)).unwrap_or(0));
        (&self.file).take(bytes).read_to_end(&mut data).map_err(|e| self.unreadable(e))?;
        Ok(data.into())
    }

    fn rewind(&mut self) -> Result<()> {
        std::io::Seek::rewind(&mut self.file).map_err(|e| self.unreadable(e))
    }

    fn unreadable(&self, source: std::io::Error) -> Error {
        Error::Read { path: self.key.clone().into(), source }
    }

    fn judge(&self, hash: Sha256) -> Result<()> {
        let found = writer::hex(&hash.finalize());
        if found.eq_ignore_ascii_case(&self.sha256) {
            return Ok(());
        }
        let why = format!("it has sha256 {found}, {} was recorded", diagctl_fs::printable(&self.sha256));
        Err(Error::Damaged { capture: self.capture, report: self.report.clone(), why })
    }
}
