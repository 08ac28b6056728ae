//! Small objects that other machines and people write. One that cannot be used is left out, and named once: it must not keep anybody from the others.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::output;
use crate::ticket::MAX_OBJECT;

/// Reads objects of others.
#[derive(Debug)]
pub struct Foreign<'b> {
    bucket: &'b Bucket,
    told: RefCell<BTreeSet<String>>,
}

impl<'b> Foreign<'b> {
    /// Creates a reader that has told nothing yet.
    pub fn new(bucket: &'b Bucket) -> Self {
        Self { bucket, told: RefCell::default() }
    }

    /// Returns the bucket.
    pub fn bucket(&self) -> &'b Bucket {
        self.bucket
    }

    /// Reads an object, or returns `None` if it is gone or cannot be used, which is told.
    ///
    /// # Errors
    ///
    /// If the remote fails, and the next object would most likely fail in the same way.
    pub async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let data = match self.bucket.read(key, MAX_OBJECT).await {
            Err(error) if is_of_object(&error) => {
                self.skip(key, &error.to_string());
                return Ok(None);
            }
            read => read?,
        };
        let Some(data) = data else { return Ok(None) };
        let value = serde_json::from_slice(&data);
        if value.is_err() {
            self.skip(key, &format!("{key} is not what diagctl writes there"));
        }
        Ok(value.ok())
    }

    /// Tells once that an object is left out.
    pub fn skip(&self, key: &str, why: &str) {
        if self.told.borrow_mut().insert(key.to_owned()) {
            output::note(&format!("skipped an object of the remote: {why}"));
        }
    }
}

/// Returns true if another object may well be read.
pub fn is_of_object(error: &Error) -> bool {
    match error {
        Error::TooLarge { .. } => true,
        // A link, a pipe, or a file of somebody else. The directory itself is opened, not read.
        Error::Directory { action, .. } => *action == "read",
        // An object with an encryption of its own, or one that was moved to an archive.
        Error::Remote { .. } => error.is_refused(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::Node;

    #[tokio::test]
    async fn what_cannot_be_used_is_left_out_and_a_remote_that_is_gone_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().join("files").into());
        let path = |name: &str| dir.path().join("files/nodes").join(name);
        std::fs::create_dir_all(path("")).unwrap();
        std::fs::write(path("good"), "{\"poll_ms\":1000}").unwrap();
        std::fs::write(path("large"), vec![b' '; 70_000]).unwrap();
        std::fs::write(path("garbage"), "[[[").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path("link")).unwrap();
        let foreign = Foreign::new(&bucket);
        for name in ["large", "garbage", "link", "none", "large"] {
            assert_eq!(foreign.read::<Node>(&format!("nodes/{name}")).await.unwrap(), None, "{name}");
        }
        let told: Vec<String> = foreign.told.borrow().iter().cloned().collect();
        assert_eq!(told, ["nodes/garbage", "nodes/large", "nodes/link"]);
        assert_eq!(foreign.read::<Node>("nodes/good").await.unwrap().unwrap().poll_ms, 1000);
        std::fs::remove_dir_all(dir.path().join("files")).unwrap();
        assert!(foreign.read::<Node>("nodes/good").await.is_err());
    }
}
