//! Sends one capture: its reports, and at last its record, which is the commit.

use std::time::Duration;

use diagctl_fs::{self as fs, Durability, Spot};
use diagctl_observe::clock::Stopwatch;
use diagctl_store::index::Entry;
use diagctl_store::{Id, Store, meta, shipping};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use crate::bucket::Bucket;
use crate::error::Result;
use crate::journal::Journal;
use crate::keys::{self, Object};
use crate::settings::Settings;
use crate::throttle::Throttle;
use crate::upload::{Source, Uploader};

/// Number of captures on the way at once. Under a bandwidth it is one, so that what is worth most arrives first.
const AT_ONCE: usize = 16;

/// Number of small files of one capture on the way at once: with latency, all of a usual one.
const SMALL_AT_ONCE: usize = 16;

/// The most objects of a capture that are looked at. What comes after them is sent again.
const LISTED: usize = 10_000;

/// The time after which the first files of a capture may look abandoned to `gc --remote`: it gives them two days.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Sends captures.
#[derive(Debug)]
pub struct Sender<'a> {
    store: &'a Store,
    bucket: &'a Bucket,
    /// Its uploads.
    pub uploader: Uploader<'a>,
    /// The number of captures on the way at once.
    pub at_once: usize,
    /// The files that may be open at once.
    files: Semaphore,
    /// A shipment that took so long is looked at before its commit.
    long: Duration,
    /// Has an empty file for each capture that is sent whatever the remote has of it.
    again: Spot,
}

/// A capture that was sent.
#[derive(Debug)]
pub struct Sent {
    /// Its line in the manifest.
    pub entry: Entry,
    /// The number of its files.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
}

impl<'a> Sender<'a> {
    /// Has these captures wait once more, and sends them whatever the remote has of them.
    pub fn again(self, ids: &[Id]) -> Result<Self> {
        for id in ids {
            if !self.again.is_dir() {
                fs::create_dir(&self.again, 0o700)?;
            }
            fs::write_atomic(&self.again.join(id.as_str()), b"", Durability::Synced)?;
            shipping::unconfirm(self.store, *id)?;
            self.uploader.forget(*id)?;
        }
        Ok(self)
    }

    /// Sends captures of a store.
    pub fn new(store: &'a Store, bucket: &'a Bucket, settings: &'a Settings) -> Result<Self> {
        let throttle = Throttle::new(settings.remote.max_bandwidth);
        let at_once = if throttle.is_limited() { 1 } else { AT_ONCE };
        let journal = Journal::open(&shipping::directory(store)?)?;
        let uploader = Uploader::new(bucket, &settings.remote.url, journal, throttle);
        Ok(Self {
            store,
            bucket,
            uploader,
            at_once,
            files: Semaphore::new(most_files()),
            long: LONG,
            again: shipping::directory(store)?.join("again"),
        })
    }

    /// Sends a capture. Returns `None` if it was deleted meanwhile.
    pub async fn send(&self, id: Id) -> Result<Option<Sent>> {
        let dir = self.store.report_dir(&id);
        let record = match fs::read_bounded(&dir.join("meta.json"), meta::MAX_FILE) {
            Err(e) if e.is_not_found() && !dir.exists() => return Ok(None),
            read => read?,
        };
        let meta = meta::parse(dir.path(), &record)?;
        let base = keys::capture(&meta.created, &meta.host, id.as_str());
        // `None` cannot happen: the semaphore is never closed.
        let wanted = u32::try_from(meta.reports.len().min(most_files())).unwrap_or(1);
        let _permit = self.files.acquire_many(wanted).await.ok();
        // Opened before anything is sent: retention may delete the capture, and then it still arrives whole.
        let mut sources = Vec::new();
        for report in &meta.reports {
            let Some(file) = &report.file else { continue };
            let key = format!("{base}/{file}");
            let (name, sha256) = (report.name.to_string(), report.sha256.clone().unwrap_or_default());
            let file = fs::open_read(&dir.join(file))?;
            sources.push(Source { capture: id, report: name, key, bytes: report.stored_bytes, sha256, file });
        }
        sources.iter().try_for_each(|source| self.uploader.require_sound(source))?;
        let entry = Entry { shipped: true, ..Entry::of(self.store, &meta) };
        let bytes: u64 = sources.iter().map(|source| source.bytes).sum();
        let files = sources.len() + 1;
        let commit = format!("{base}/meta.json");
        // A longer one is another one.
        let asked = self.again.join(id.as_str());
        let is_asked = asked.is_file();
        if is_asked || self.bucket.look(&commit, record.len() as u64).await?.is_none_or(|there| there != record) {
            self.send_all(&base, sources).await?;
            self.bucket.put(&commit, record.into()).await?;
            if is_asked {
                fs::remove_file(&asked)?;
            }
        } else {
            // Another shipper sent it, or one that was killed. Somebody may have deleted a part of it since.
            let mut missing = self.without_those_there(&base, sources, |_| true).await?;
            self.send_files(&mut missing).await?;
        }
        Ok(Some(Sent { entry, files, bytes }))
    }

    // Sends the files of a capture, and those again that were deleted during a long shipment. Where that is unknown, small files go again.
    async fn send_all(&self, base: &str, mut sources: Vec<Source>) -> Result<()> {
        let mut since = Stopwatch::start();
        self.send_files(&mut sources).await?;
        while since.elapsed() >= self.long && !sources.is_empty() {
            since = Stopwatch::start();
            sources = self.without_those_there(base, sources, |source| !self.uploader.is_large(source)).await?;
            self.send_files(&mut sources).await?;
        }
        Ok(())
    }

    // Leaves out the files that the remote has with the same size. Credentials that may not list cannot tell: then `otherwise` decides.
    async fn without_those_there(
        &self,
        base: &str,
        mut sources: Vec<Source>,
        otherwise: impl Fn(&Source) -> bool,
    ) -> Result<Vec<Source>> {
        let is = |source: &Source, object: &Object| object.key == source.key && object.bytes == source.bytes;
        let there =
            self.bucket.list_wanted(base, LISTED, |object| sources.iter().any(|source| is(source, object))).await;
        match there {
            Err(error) if error.is_denied() => sources.retain(otherwise),
            there => {
                let there = there?;
                sources.retain(|source| !there.iter().any(|object| is(source, object)));
            }
        }
        Ok(sources)
    }

    // The journal has one file for a capture, so large files go one after the other.
    async fn send_files(&self, sources: &mut [Source]) -> Result<()> {
        let (large, small): (Vec<_>, Vec<_>) = sources.iter_mut().partition(|source| self.uploader.is_large(source));
        let send = async |source| self.uploader.send(source).await;
        stream::iter(small).map(send).buffer_unordered(SMALL_AT_ONCE).try_collect::<()>().await?;
        for source in large {
            self.uploader.send(source).await?;
        }
        Ok(())
    }
}

// Half of the descriptors that this process may have. The other half is for connections and everything else.
fn most_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(u64::MAX) / 2).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::Access;
    use sha2::{Digest, Sha256};

    // A capture with these reports.
    fn publish(store: &Store, reports: &[&str]) -> Id {
        let id: Id = "20260101T000000000Z-aaaaaaaa".parse().unwrap();
        let dir = store.report_dir(&id).path().to_owned();
        std::fs::create_dir_all(&dir).unwrap();
        let report = |name: &&str| {
            std::fs::write(dir.join(name), name).unwrap();
            let sha256 = Some(diagctl_store::writer::hex(&Sha256::digest(name)));
            meta::Report {
                file: Some((*name).into()),
                stored_bytes: name.len() as u64,
                sha256,
                ..meta::Report::new(name.parse().unwrap())
            }
        };
        let reports = reports.iter().map(report).collect();
        let created = "2026-01-01T00:00:00.000Z".into();
        let record = meta::Meta { schema: 1, id, host: "web-1".into(), created, reports, ..meta::Meta::default() };
        std::fs::write(dir.join("meta.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        id
    }

    // `gc --remote` deletes what has no meta.json for two days.
    #[tokio::test]
    async fn what_was_deleted_during_a_long_shipment_is_sent_again_before_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let (files, store) = (dir.path().join("files"), dir.path().join("store"));
        std::fs::create_dir(&files).unwrap();
        let store = Store::open(diagctl_store::StoreOptions::new(store), Access::Create).unwrap();
        let id = publish(&store, &["first", "second"]);
        let there = files.join(keys::capture("2026-01-01T00:00:00.000Z", "web-1", id.as_str()));
        let bucket = Bucket::Directory(files.into());
        let journal = Journal::open(&shipping::directory(&store).unwrap()).unwrap();
        // The second file waits until the first is paid for.
        let uploader = Uploader::new(&bucket, "file://", journal, Throttle::new(Some(20)));
        let sender = Sender {
            store: &store,
            bucket: &bucket,
            uploader,
            at_once: 1,
            files: Semaphore::new(9),
            long: Duration::ZERO,
            again: shipping::directory(&store).unwrap().join("again"),
        };
        let collector = async {
            while std::fs::remove_file(there.join("first")).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!there.join("second").exists() && !there.join("meta.json").exists(), "it is under way");
        };
        let (sent, ()) = tokio::join!(sender.send(id), collector);
        assert_eq!(sent.unwrap().unwrap().files, 3);
        for name in ["first", "second"] {
            assert_eq!(std::fs::read_to_string(there.join(name)).ok().as_deref(), Some(name));
        }
        assert!(there.join("meta.json").exists());
    }
}
