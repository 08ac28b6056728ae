//! Sends one file of a capture. A large file goes in parts, of which the journal keeps track. Many files and parts are on the way at once,
//! and all of them share one budget of memory, whatever their sizes and their number.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use diagctl_store::{Id, writer};
use futures_util::StreamExt;
use futures_util::stream;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::bucket::{self, Bucket};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::journal::{Journal, Upload};
use crate::output;
use crate::probe;
use crate::throttle::Throttle;

/// Number of parts of one file on the way at once.
const AT_ONCE: usize = 3;

/// The most failures of an upload in a row without a part more. By then `--watch` has tried for minutes.
const MOST_STALLS: u32 = 8;

/// The most bytes on the way at once, of all files: three parts of 8 MiB, one part of a huge file, or many small files.
const BUDGET: u64 = 24 << 20;

/// The least that a file or a part counts, bytes: so there are at most 48 requests at once.
const UNIT: u64 = 512 << 10;

/// Size of what is read at once of a file that goes into a directory, or whose checksum is computed, bytes.
const CHUNK: u64 = 256 << 10;

/// The time for which a completed upload is taken to be in the remote with credentials that cannot ask, milliseconds. `gc --remote` deletes
/// no file of an unfinished shipment before the double of it.
const TRUSTED_MS: u64 = 24 * 3_600_000;

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
    /// The file.
    pub file: File,
}

/// Everything that uploads need.
#[derive(Debug)]
pub struct Uploader<'a> {
    bucket: &'a Bucket,
    url: &'a str,
    journal: Journal,
    throttle: Throttle,
    budget: Semaphore,
    damaged: Verdicts,
}

/// What was found wrong with a version of a report, by capture and report.
type Verdicts = RefCell<BTreeMap<(Id, String), (Version, String)>>;

/// Device, inode, size, and times of the last changes of a file.
type Version = (u64, u64, u64, i64, i64, i64, i64);

impl<'a> Uploader<'a> {
    /// Creates it for a remote and its URL.
    pub fn new(bucket: &'a Bucket, url: &'a str, journal: Journal, throttle: Throttle) -> Self {
        let units = usize::try_from(BUDGET / UNIT).unwrap_or(1);
        Self { bucket, url, journal, throttle, budget: Semaphore::new(units), damaged: Verdicts::default() }
    }

    /// Returns true if a file goes in parts.
    pub fn is_large(&self, source: &Source) -> bool {
        source.bytes > self.throttle.part_bytes()
    }

    /// Fails if this version of a file was found to be damaged before.
    pub fn require_sound(&self, source: &Source) -> Result<()> {
        match self.damaged.borrow().get(&source.name()) {
            Some((version, why)) if *version == source.version()? => {
                let (capture, report) = source.name();
                Err(Error::Damaged { capture, report, why: why.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Sends a file. Nothing is left in the remote if the file does not match its record.
    pub async fn send(&self, source: &mut Source) -> Result<()> {
        let done = self.send_file(source).await;
        if let Err(Error::Damaged { why, .. }) = &done {
            self.damaged.borrow_mut().insert(source.name(), (source.version()?, why.clone()));
        }
        done
    }

    async fn send_file(&self, source: &mut Source) -> Result<()> {
        source.rewind()?;
        let part_bytes = self.throttle.part_bytes().max(source.bytes.div_ceil(MOST_PARTS));
        match self.bucket {
            Bucket::Directory(dir) => return self.copy(dir, source).await,
            Bucket::Cloud { .. } if self.is_large(source) => {}
            Bucket::Cloud { .. } => {
                let _permit = self.permit(source.bytes).await;
                let data = source.next(source.bytes)?;
                let mut hash = Sha256::new();
                hash.update(&data);
                source.judge(hash)?;
                self.throttle.wait(source.bytes).await;
                self.bucket.put(&source.key, data).await?;
                output::progress();
                return Ok(());
            }
        }
        let known = self.journal.find(source.capture, self.url, &source.key).filter(|upload| upload.is_of(source));
        let upload = match known {
            Some(done) if done.completed_ms > 0 && self.is_there(&done).await? => return Ok(()),
            Some(begun) if begun.is_under_way() => begun,
            Some(Upload { was_damaged: true, .. }) => {
                // Reading costs less than uploading it once more.
                let hash = hash_of(&mut source.file).await.map_err(|e| source.unreadable(e))?;
                source.judge(hash)?;
                self.begin(source, part_bytes).await?
            }
            _ => self.begin(source, part_bytes).await?,
        };
        match self.send_parts(source, upload.clone()).await {
            // Another shipper has completed one of this object, or a lifecycle rule has aborted it.
            Err(e) if bucket::is_gone(&e) => {
                let upload = self.begin(source, part_bytes).await?;
                self.send_parts(source, upload).await
            }
            Err(e) if !matches!(e, Error::Damaged { .. }) => self.note_stall(source, &upload).await.and(Err(e)),
            done => done,
        }
    }

    // Some servers tell that they have forgotten an upload by closing the connection only. So one that has failed many times, without a
    // part more, is given up. The next run begins anew.
    async fn note_stall(&self, source: &Source, before: &Upload) -> Result<()> {
        let Some(mut upload) = self.journal.find(source.capture, self.url, &source.key) else { return Ok(()) };
        upload.stalls = if upload.parts.len() == before.parts.len() { upload.stalls + 1 } else { 0 };
        if upload.stalls < MOST_STALLS {
            return self.journal.write(source.capture, &upload);
        }
        self.try_to_abort(&upload).await;
        self.journal.forget(source.capture, &upload)
    }

    // An upload that the remote refuses to abort is left to the lifecycle rule: it must not hold up anything for ever.
    async fn abort(&self, upload: &Upload) -> Result<()> {
        match self.bucket.abort(&upload.key, &upload.upload_id).await {
            Err(error) if error.is_of_one_object() => Ok(()),
            done => done,
        }
    }

    // An upload that cannot be aborted is left to the lifecycle rule.
    async fn try_to_abort(&self, upload: &Upload) {
        let _ = self.bucket.abort(&upload.key, &upload.upload_id).await;
    }

    // True if the remote still has an object that was completed: somebody may have deleted it before its capture was committed.
    async fn is_there(&self, done: &Upload) -> Result<bool> {
        match self.bucket.stat(&done.key).await {
            Err(error) if error.is_denied() => {
                Ok(probe::local_ms().checked_sub(done.completed_ms).is_some_and(|age| age < TRUSTED_MS))
            }
            found => Ok(found?.is_some_and(|object| object.bytes == done.bytes)),
        }
    }

    /// Forgets what of a capture is in the remote, so that all of it is sent.
    pub fn forget(&self, id: Id) -> Result<()> {
        self.journal.remove(id)
    }

    /// Gives up the uploads of captures that retention has deleted, and returns those. What waits is resumed.
    pub async fn abort_stale(&self, waits: impl Fn(Id) -> bool) -> Result<Vec<Id>> {
        let mut aborted = Vec::new();
        for id in self.journal.all().into_iter().filter(|id| !waits(*id)) {
            let uploads = self.journal.read(id);
            for upload in uploads.iter().filter(|upload| upload.url == self.url && upload.is_under_way()) {
                self.abort(upload).await?;
                aborted.push(id);
            }
            self.journal.remove(id)?;
        }
        aborted.dedup();
        Ok(aborted)
    }

    async fn begin(&self, source: &mut Source, part_bytes: u64) -> Result<Upload> {
        source.rewind()?;
        let before = self.journal.find(source.capture, self.url, &source.key);
        if let Some(other) = before.filter(Upload::is_under_way) {
            self.try_to_abort(&other).await;
        }
        let upload_id = self.bucket.begin(&source.key).await?;
        let (url, key, sha256) = (self.url.to_owned(), source.key.clone(), source.sha256.clone());
        let bytes = source.bytes;
        let upload = Upload { schema: 1, url, key, upload_id, sha256, bytes, part_bytes, ..Upload::default() };
        if let Err(error) = self.journal.write(source.capture, &upload) {
            // Nobody would know of it.
            self.try_to_abort(&upload).await;
            return Err(error);
        }
        Ok(upload)
    }

    // Waits until so many bytes may be in memory. `None` cannot happen: the semaphore is never closed.
    async fn permit(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let units = u32::try_from(bytes.clamp(UNIT, BUDGET).div_ceil(UNIT)).unwrap_or(1);
        self.budget.acquire_many(units).await.ok()
    }

    async fn send_parts(&self, source: &mut Source, mut upload: Upload) -> Result<()> {
        let mut hash = Sha256::new();
        for _ in 0..upload.parts.len() {
            hash.update(&source.next(upload.part_bytes)?);
        }
        self.send_rest(source, &mut hash, &mut upload).await?;
        if let Err(damaged) = source.judge(hash) {
            self.abort(&upload).await?;
            self.journal.write(source.capture, &Upload { was_damaged: true, parts: Vec::new(), ..upload })?;
            return Err(damaged);
        }
        self.bucket.complete(&upload.key, &upload.upload_id, &upload.parts, source.bytes).await?;
        let done = Upload { completed_ms: probe::local_ms(), parts: Vec::new(), ..upload };
        self.journal.write(source.capture, &done)
    }

    async fn send_rest(&self, source: &mut Source, hash: &mut Sha256, upload: &mut Upload) -> Result<()> {
        let (capture, bytes) = (source.capture, source.bytes);
        let (key, id, part_bytes) = (upload.key.clone(), upload.upload_id.clone(), upload.part_bytes);
        let count = usize::try_from(bytes.div_ceil(part_bytes)).unwrap_or(usize::MAX);
        let state = RefCell::new((source, hash));
        // Read one after the other, each when there is room for it.
        let parts = stream::iter(upload.parts.len()..count).then(async |number| {
            let permit = self.permit(part_bytes).await;
            let (source, hash) = &mut *state.borrow_mut();
            let data = source.next(part_bytes)?;
            hash.update(&data);
            Ok((number, data, permit))
        });
        let send = async |part: Result<(usize, Bytes, Option<SemaphorePermit<'_>>)>| {
            let (number, data, _permit) = part?;
            self.throttle.wait(data.len() as u64).await;
            self.bucket.put_part(&key, &id, number, data).await
        };
        let mut sent = std::pin::pin!(parts.map(send).buffered(AT_ONCE));
        while let Some(part) = sent.next().await {
            upload.parts.push(part?);
            output::progress();
            self.journal.write(capture, upload)?;
        }
        Ok(())
    }

    // The file gets its name only after what was read has been judged. Then it is read back.
    async fn copy(&self, dir: &Directory, source: &mut Source) -> Result<()> {
        let mut copy = dir.create(&source.key)?;
        let mut hash = Sha256::new();
        loop {
            let data = source.next(CHUNK)?;
            if data.is_empty() {
                break;
            }
            hash.update(&data);
            self.throttle.wait(data.len() as u64).await;
            copy.write(&data)?;
            signs_of_life().await;
        }
        source.judge(hash)?;
        copy.finish()?;
        let mut written = dir.open(&source.key)?;
        source.judge(hash_of(&mut written).await.map_err(|e| source.unreadable(e))?)
    }
}

// A large file on a slow share takes long. Requests are looked for meanwhile.
async fn signs_of_life() {
    output::progress();
    tokio::task::yield_now().await;
}

async fn hash_of(file: &mut File) -> std::io::Result<Sha256> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; usize::try_from(CHUNK).unwrap_or(0)]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash),
            read => hash.update(&chunk[..read]),
        }
        signs_of_life().await;
    }
}

impl Upload {
    // True if it is an upload of this very file.
    fn is_of(&self, source: &Source) -> bool {
        let is_same = self.sha256 == source.sha256 || (self.sha256.is_empty() && self.completed_ms == 0);
        is_same && self.bytes == source.bytes && self.part_bytes > 0
    }
}

impl Source {
    fn name(&self) -> (Id, String) {
        (self.capture, self.report.clone())
    }

    fn version(&self) -> Result<Version> {
        let meta = self.file.metadata().map_err(|e| self.unreadable(e))?;
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        Ok((meta.dev(), meta.ino(), meta.len(), times.0, times.1, times.2, times.3))
    }

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
