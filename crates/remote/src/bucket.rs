//! The remote: a bucket of S3 or of a server that speaks like it, or a directory. Everything that is written has been confirmed
//! when a function of this module returns.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, Error as Failed, ObjectStore, ObjectStoreExt, RetryConfig};

use crate::credentials::CommandCredentials;
use crate::directory;
use crate::error::{Error, Result};
use crate::settings::Remote;

/// The remote.
#[derive(Debug)]
pub enum Bucket {
    /// S3, and the prefix of all keys.
    S3 {
        /// The client.
        client: Box<AmazonS3>,
        /// The prefix, without slashes at its ends.
        prefix: String,
    },
    /// A directory.
    Directory(PathBuf),
}

impl Bucket {
    /// Creates the client. Nothing is sent yet.
    pub fn open(remote: &Remote) -> Result<Self> {
        if let Some(path) = remote.url.strip_prefix("file://") {
            return Ok(Self::Directory(path.into()));
        }
        let rest = remote
            .url
            .strip_prefix("s3://")
            .ok_or_else(|| Error::Settings(format!("{}: no such scheme", remote.url)))?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // A proxy, a CA and the credentials of the environment, the instance or the pod.
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(name)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_retry(retry());
        if let Some(endpoint) = &remote.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if remote.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_client_options(options().with_allow_http(true));
        } else {
            builder = builder.with_client_options(options());
        }
        if let Some(region) = &remote.region {
            builder = builder.with_region(region);
        }
        if !remote.credential_command.is_empty() {
            builder = builder.with_credentials(Arc::new(CommandCredentials::new(&remote.credential_command)));
        }
        let client = builder.build().map_err(|e| Error::Settings(e.to_string()))?;
        Ok(Self::S3 { client: Box::new(client), prefix: prefix.trim_matches('/').to_owned() })
    }

    /// Writes a whole object.
    pub async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        let bytes = data.len() as u64;
        match self {
            Self::Directory(dir) => directory::write(&directory::require(dir)?.join(key), &data),
            Self::S3 { client, .. } => {
                // The server compares the checksums in the request with what it got.
                client.put(&self.path(key)?, data.into()).await.map_err(failed("write", key))?;
                self.confirm(key, bytes).await
            }
        }
    }

    /// Reads a whole small object, or returns `None` if there is none.
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>> {
        match self {
            Self::Directory(dir) => directory::read(&dir.join(key)),
            Self::S3 { client, .. } => match client.get(&self.path(key)?).await {
                Ok(found) => found.bytes().await.map(Some).map_err(failed("read", key)),
                Err(Failed::NotFound { .. }) => Ok(None),
                Err(e) => Err(failed("read", key)(e)),
            },
        }
    }

    /// Does the same for credentials that may only write. Then nothing is known to be there.
    pub async fn look(&self, key: &str) -> Result<Option<Bytes>> {
        match self.read(key).await {
            Err(Error::Remote { source: Failed::PermissionDenied { .. }, .. }) => Ok(None),
            read => read,
        }
    }

    /// Returns the keys and the sizes of the objects under a prefix, in no particular order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>> {
        match self {
            Self::Directory(dir) => directory::list(directory::require(dir)?, prefix),
            Self::S3 { client, prefix: ours } => {
                let objects: Vec<_> =
                    client.list(Some(&self.path(prefix)?)).try_collect().await.map_err(failed("list", prefix))?;
                let key =
                    |path: &str| path.strip_prefix(ours.as_str()).unwrap_or(path).trim_start_matches('/').to_owned();
                Ok(objects.into_iter().map(|object| (key(object.location.as_ref()), object.size)).collect())
            }
        }
    }

    /// Begins a multipart upload, and returns its name.
    pub async fn begin(&self, key: &str) -> Result<String> {
        let Self::S3 { client, .. } = self else { return Ok(String::new()) };
        client.create_multipart(&self.path(key)?).await.map_err(failed("begin the upload of", key))
    }

    /// Uploads a part, and returns the remote's name of it.
    pub async fn put_part(&self, key: &str, upload: &str, number: usize, data: Bytes) -> Result<String> {
        let Self::S3 { client, .. } = self else { return Ok(String::new()) };
        let part = client.put_part(&self.path(key)?, &upload.to_owned(), number, data.into()).await;
        Ok(part.map_err(failed("upload a part of", key))?.content_id)
    }

    /// Makes an object of its parts.
    pub async fn complete(&self, key: &str, upload: &str, parts: &[String], bytes: u64) -> Result<()> {
        let Self::S3 { client, .. } = self else { return Ok(()) };
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        let done = client.complete_multipart(&self.path(key)?, &upload.to_owned(), parts).await;
        done.map_err(failed("complete the upload of", key))?;
        self.confirm(key, bytes).await
    }

    /// Gives up a multipart upload. One that is gone is given up.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<()> {
        let Self::S3 { client, .. } = self else { return Ok(()) };
        match client.abort_multipart(&self.path(key)?, &upload.to_owned()).await {
            Err(e) if !matches!(e, Failed::NotFound { .. }) => Err(failed("abort the upload of", key)(e)),
            _ => Ok(()),
        }
    }

    // A node may be allowed to write only. Then the answer to the write counts alone.
    async fn confirm(&self, key: &str, expected: u64) -> Result<()> {
        let Self::S3 { client, .. } = self else { return Ok(()) };
        match client.head(&self.path(key)?).await {
            Ok(found) if found.size == expected => Ok(()),
            Ok(found) => Err(Error::Unconfirmed { key: key.to_owned(), found: found.size, expected }),
            Err(Failed::PermissionDenied { .. }) => Ok(()),
            Err(e) => Err(failed("confirm", key)(e)),
        }
    }

    fn path(&self, key: &str) -> Result<Path> {
        let prefix = match self {
            Self::S3 { prefix, .. } => prefix.as_str(),
            Self::Directory(_) => "",
        };
        Path::parse(format!("{prefix}/{key}")).map_err(|source| failed("name", key)(source.into()))
    }
}

/// Returns true if a multipart upload is not known to the remote.
pub fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Remote { source: Failed::NotFound { .. }, .. })
}

fn failed(action: &'static str, key: &str) -> impl FnOnce(Failed) -> Error {
    let key = key.to_owned();
    move |source| Error::Remote { action, key, source }
}

fn options() -> ClientOptions {
    // A part of 8 MiB takes a minute at 1 Mbit/s. A connection that is silent is given up.
    ClientOptions::new().with_timeout(Duration::from_secs(180)).with_connect_timeout(Duration::from_secs(10))
}

// Within one request. The shipper itself waits longer between its attempts.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(60) }
}
