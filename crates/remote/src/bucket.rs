//! The remote: a bucket of a cloud, or a directory. Everything that is written has been confirmed when a function of this module
//! returns.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error as Failed, ObjectStoreExt};

use crate::cloud::{self, Cloud};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::keys::Object;
use crate::reason;
use crate::settings::Remote;

/// The remote.
#[derive(Debug)]
pub enum Bucket {
    /// A bucket of a cloud, and the prefix of all keys.
    Cloud {
        /// The client.
        client: Arc<dyn Cloud>,
        /// The prefix, without slashes at its ends.
        prefix: String,
        /// The URL, and that of the server if it is configured, for errors.
        place: String,
    },
    /// A directory.
    Directory(Directory),
}

impl Bucket {
    /// Creates the client. Nothing is sent yet.
    pub fn open(remote: &Remote) -> Result<Self> {
        if let Some(path) = remote.url.strip_prefix("file://") {
            return Ok(Self::Directory(Directory::from(path)));
        }
        let (client, prefix) = cloud::open(remote)?;
        let url = remote.url.trim_end_matches('/');
        let place = match &remote.endpoint {
            Some(endpoint) => format!("{url} at {endpoint}"),
            None => url.to_owned(),
        };
        Ok(Self::Cloud { client, prefix, place })
    }

    /// Deletes what was left unfinished long ago. In a cloud, `ship` aborts uploads, and a lifecycle rule does.
    pub fn sweep(&self, now_ms: u64) -> Result<()> {
        match self {
            Self::Directory(dir) => dir.sweep("captures", now_ms),
            Self::Cloud { .. } => Ok(()),
        }
    }

    /// Fails if this is a share that is not mounted. `has_captures` says that captures were sent to it before.
    pub fn require_mounted(&self, has_captures: bool) -> Result<()> {
        match self {
            Self::Directory(dir) => dir.mark(has_captures),
            Self::Cloud { .. } => Ok(()),
        }
    }

    /// The directory, if it looks as if nothing was ever sent to it.
    pub fn unused_directory(&self) -> Option<&std::path::Path> {
        match self {
            Self::Directory(dir) => (!dir.is_used()).then_some(dir.path()),
            Self::Cloud { .. } => None,
        }
    }

    /// Writes a whole object.
    pub async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        match self {
            Self::Directory(dir) => dir.write(key, &data),
            // The server compares the checksum in the request with what it got, so nothing has to be asked afterwards.
            Self::Cloud { client, .. } => {
                client.put(&self.path(key)?, data.into()).await.map_err(self.failed("write", key)).map(drop)
            }
        }
    }

    /// Reads a whole small object, or returns `None` if there is none. One of more than `most` bytes is an error.
    pub async fn read(&self, key: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let mut data = Vec::new();
        let keep = |chunk: &[u8]| {
            data.extend_from_slice(chunk);
            Ok(())
        };
        Ok(self.pour(key, most, keep).await?.map(|()| data))
    }

    /// Reads an object piece by piece, or returns `None` if there is none. It ends with an error as soon as there are more than `most`
    /// bytes, whatever size the remote tells.
    pub async fn pour(&self, key: &str, most: u64, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<Option<()>> {
        let mut read = 0;
        let mut take = |chunk: &[u8]| {
            read += chunk.len() as u64;
            if read > most { Err(Error::TooLarge { key: key.to_owned(), most }) } else { sink(chunk) }
        };
        match self {
            Self::Directory(dir) => dir.pour(key, take),
            Self::Cloud { client, .. } => {
                let found = match client.get(&self.path(key)?).await {
                    Err(Failed::NotFound { source, .. }) if is_of_object(&*source) => return Ok(None),
                    found => found.map_err(self.failed("read", key))?,
                };
                let mut chunks = found.into_stream();
                while let Some(chunk) = chunks.try_next().await.map_err(self.failed("read", key))? {
                    take(&chunk)?;
                }
                Ok(Some(()))
            }
        }
    }

    /// Examines an object, or returns `None` if there is none.
    pub async fn stat(&self, key: &str) -> Result<Option<Object>> {
        match self {
            Self::Directory(dir) => dir.stat(key),
            Self::Cloud { client, prefix, .. } => match client.head(&self.path(key)?).await {
                Err(Failed::NotFound { .. }) => Ok(None),
                found => Ok(Some(object(prefix, &found.map_err(self.failed("examine", key))?))),
            },
        }
    }

    /// Reads a small object with credentials that may only write. Then nothing is known to be there.
    pub async fn look(&self, key: &str, most: u64) -> Result<Option<Vec<u8>>> {
        match self.read(key, most).await {
            Err(Error::Remote { source: Failed::PermissionDenied { .. }, .. } | Error::TooLarge { .. }) => Ok(None),
            read => read,
        }
    }

    /// Returns the objects of a range of days under `captures`, `manifests` or `merged`, in no particular order.
    pub async fn list_days(&self, area: &str, since: Option<&str>, until: Option<&str>) -> Result<Vec<Object>> {
        let is_wanted = |key: &str| {
            let day = key.split('/').nth(1).unwrap_or_default();
            since.is_none_or(|since| day >= since) && until.is_none_or(|until| day <= until)
        };
        match self {
            Self::Directory(dir) => dir.list(area, &is_wanted),
            Self::Cloud { client, prefix, .. } => {
                let path = self.path(area)?;
                let start = path.clone().join(since.unwrap_or_default());
                let objects = match since {
                    Some(_) => client.list_with_offset(Some(&path), &start),
                    None => client.list(Some(&path)),
                };
                // S3 lists in the order of the keys, so what comes after the last day need not be read.
                let wanted = objects.try_take_while(|object| {
                    let key = key_of(prefix, &object.location);
                    let day = key.split('/').nth(1).unwrap_or_default();
                    std::future::ready(Ok(until.is_none_or(|until| day <= until)))
                });
                let objects: Vec<_> = wanted.try_collect().await.map_err(self.failed("list", area))?;
                Ok(objects.iter().map(|found| object(prefix, found)).filter(|object| is_wanted(&object.key)).collect())
            }
        }
    }

    /// Returns the objects of one capture.
    pub async fn list_under(&self, base: &str) -> Result<Vec<Object>> {
        match self {
            Self::Directory(dir) => dir.list(base, &|_| true),
            Self::Cloud { client, prefix, .. } => {
                let objects: Vec<_> =
                    client.list(Some(&self.path(base)?)).try_collect().await.map_err(self.failed("list", base))?;
                Ok(objects.iter().map(|found| object(prefix, found)).collect())
            }
        }
    }

    /// Returns the objects of one capture that are wanted, of at most so many that the remote lists.
    pub async fn list_wanted(
        &self,
        base: &str,
        most: usize,
        is_wanted: impl Fn(&Object) -> bool,
    ) -> Result<Vec<Object>> {
        let Self::Cloud { client, prefix, .. } = self else {
            return Ok(self.list_under(base).await?.into_iter().filter(is_wanted).collect());
        };
        let path = self.path(base)?;
        let objects = client.list(Some(&path)).take(most).map_ok(|found| object(prefix, &found));
        let wanted = objects.try_filter(|object| std::future::ready(is_wanted(object)));
        wanted.try_collect().await.map_err(self.failed("list", base))
    }

    /// Returns the keys under an area that come after a name and are wanted, sorted. Of a cloud, at most so many objects are looked at; of a
    /// directory, at most so many are kept. Returns true with them if there are more.
    pub async fn list_after(
        &self,
        area: &str,
        name: &str,
        most: usize,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<(Vec<String>, bool)> {
        let start = format!("{area}/{name}");
        let (mut keys, is_cut) = match self {
            Self::Directory(dir) => {
                let wanted = Cell::new(0);
                let is_kept = |key: &str| {
                    let is_wanted = key > start.as_str() && is_wanted(key);
                    wanted.set(wanted.get() + usize::from(is_wanted));
                    is_wanted && wanted.get() <= most
                };
                let objects = dir.list(area, &is_kept)?;
                (objects.into_iter().map(|object| object.key).collect::<Vec<_>>(), wanted.get() > most)
            }
            Self::Cloud { client, prefix, .. } => {
                // Filtered, because not every server heeds the offset. The client asks for a page when the one before is used up.
                let offset = self.path(&start)?;
                let objects = client.list_with_offset(Some(&self.path(area)?), &offset);
                let mut objects =
                    objects.try_filter(|object| std::future::ready(object.location > offset)).take(most + 1);
                let (mut keys, mut looked_at) = (Vec::new(), 0);
                while let Some(found) = objects.try_next().await.map_err(self.failed("list", area))? {
                    looked_at += 1;
                    let key = key_of(prefix, &found.location);
                    if looked_at <= most && is_wanted(&key) {
                        keys.push(key);
                    }
                }
                (keys, looked_at > most)
            }
        };
        keys.sort_unstable();
        Ok((keys, is_cut))
    }

    /// Deletes objects. One that is gone is deleted.
    pub async fn delete(&self, keys: Vec<String>) -> Result<()> {
        match self {
            Self::Directory(dir) => keys.iter().try_for_each(|key| dir.delete(key)),
            Self::Cloud { client, .. } => {
                let paths: Vec<Path> = keys.iter().map(|key| self.path(key)).collect::<Result<_>>()?;
                let mut deleted = client.delete_stream(stream::iter(paths).map(Ok).boxed());
                while let Some(deleted) = deleted.next().await {
                    match deleted {
                        Err(e) if !matches!(e, Failed::NotFound { .. }) => {
                            return Err(self.failed("delete", "objects")(e));
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
        }
    }

    /// Begins a multipart upload, and returns its name.
    pub async fn begin(&self, key: &str) -> Result<String> {
        let Self::Cloud { client, .. } = self else { return Ok(String::new()) };
        client.create_multipart(&self.path(key)?).await.map_err(self.failed("begin the upload of", key))
    }

    /// Uploads a part, and returns the remote's name of it.
    pub async fn put_part(&self, key: &str, upload: &str, number: usize, data: Bytes) -> Result<String> {
        let Self::Cloud { client, .. } = self else { return Ok(String::new()) };
        let part = client.put_part(&self.path(key)?, &upload.to_owned(), number, data.into()).await;
        Ok(part.map_err(self.failed("upload a part of", key))?.content_id)
    }

    /// Makes an object of its parts.
    pub async fn complete(&self, key: &str, upload: &str, parts: &[String], bytes: u64) -> Result<()> {
        let Self::Cloud { client, .. } = self else { return Ok(()) };
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        let done = client.complete_multipart(&self.path(key)?, &upload.to_owned(), parts).await;
        done.map_err(self.failed("complete the upload of", key))?;
        self.confirm(key, bytes).await
    }

    /// Gives up a multipart upload. One that is gone is given up.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<()> {
        let Self::Cloud { client, .. } = self else { return Ok(()) };
        match client.abort_multipart(&self.path(key)?, &upload.to_owned()).await {
            Err(e) if !matches!(e, Failed::NotFound { .. }) => Err(self.failed("abort the upload of", key)(e)),
            _ => Ok(()),
        }
    }

    // A checksum confirms each part, and nothing the whole but its size. A node may be allowed to write only. Then the answer to the
    // completion counts alone.
    async fn confirm(&self, key: &str, expected: u64) -> Result<()> {
        let Self::Cloud { client, .. } = self else { return Ok(()) };
        match client.head(&self.path(key)?).await {
            Ok(found) if found.size == expected => Ok(()),
            Ok(found) => Err(Error::Unconfirmed { key: key.to_owned(), found: found.size, expected }),
            Err(Failed::PermissionDenied { .. }) => Ok(()),
            Err(e) => Err(self.failed("confirm", key)(e)),
        }
    }

    fn failed(&self, action: &'static str, key: &str) -> impl FnOnce(Failed) -> Error + use<> {
        let place = match self {
            Self::Cloud { place, .. } => place.as_str(),
            // Its errors are `Error::Directory`.
            Self::Directory(_) => "the directory",
        };
        let object = format!("{key} in {place}");
        move |source| Error::Remote { action, object, source }
    }

    fn path(&self, key: &str) -> Result<Path> {
        let prefix = match self {
            Self::Cloud { prefix, .. } => prefix.as_str(),
            Self::Directory(_) => "",
        };
        Path::parse(format!("{prefix}/{key}")).map_err(|source| self.failed("name", key)(source.into()))
    }
}

/// Returns true if a multipart upload is not known to the remote.
pub fn is_gone(error: &Error) -> bool {
    // Azure: the blocks were dropped because another upload of the same object was completed, or because a week has passed.
    let is_code = |source: &Failed| {
        let answer = reason::answer_of(source);
        ["InvalidBlockList", "NoSuchUpload"].iter().any(|code| answer.contains(code))
    };
    match error {
        Error::Remote { source: Failed::NotFound { .. }, .. } => true,
        Error::Remote { source, .. } => is_code(source),
        _ => false,
    }
}

fn object(prefix: &str, found: &object_store::ObjectMeta) -> Object {
    let written_ms = u64::try_from(found.last_modified.timestamp_millis()).unwrap_or(0);
    let version = found.e_tag.clone().unwrap_or_default();
    Object { key: key_of(prefix, &found.location), bytes: found.size, version, written_ms }
}

fn key_of(prefix: &str, path: &Path) -> String {
    let path = path.as_ref();
    path.strip_prefix(prefix).unwrap_or(path).trim_start_matches('/').to_owned()
}

// A bucket or container that is missing is told with the same status as an object.
fn is_of_object(source: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(source);
    while let Some(error) = source {
        let answer = error.to_string();
        if ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| answer.contains(code)) {
            return false;
        }
        source = error.source();
    }
    true
}
