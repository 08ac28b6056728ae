//! The journal of the large reports of captures that are being shipped. If the shipper is killed, the next one sends only what is missing.

use diagctl_fs::{self as fs, Durability, Spot};
use diagctl_store::Id;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Maximum size of a file of the journal, bytes: 10,000 parts of some hundred bytes.
const MAX_FILE: u64 = 8 << 20;

/// A large report of a capture, and how far its upload is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upload {
    /// The version of this file's format.
    pub schema: u32,
    /// The remote.
    pub url: String,
    /// The object.
    pub key: String,
    /// The name that the remote has given to the upload.
    pub upload_id: String,
    /// SHA-256 of the whole object, hexadecimal. Empty if an older version wrote the file.
    pub sha256: String,
    /// Size of the whole object, bytes.
    pub bytes: u64,
    /// Size of each part but the last, bytes.
    pub part_bytes: u64,
    /// The parts that the remote has confirmed, from the first on without a gap.
    pub parts: Vec<String>,
    /// Number of failures since a part was confirmed.
    pub stalls: u32,
    /// True if the upload was aborted at its end, because the file did not match its record.
    pub was_damaged: bool,
    /// Time at which the remote had the whole object, milliseconds. 0 until then.
    pub completed_ms: u64,
}

impl Upload {
    /// Returns true if the remote has parts of the object that it keeps until the upload is completed or aborted.
    pub fn is_under_way(&self) -> bool {
        !self.was_damaged && self.completed_ms == 0
    }
}

/// The directory of the journal, a file for each capture.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: Spot,
}

impl Journal {
    /// Opens the journal in the shipper's directory.
    pub fn open(remote: &Spot) -> Result<Self> {
        let dir = remote.join("uploads");
        if !dir.is_dir() {
            fs::create_dir(&dir, 0o700)?;
        }
        Ok(Self { dir })
    }

    /// Returns the captures that have a file.
    pub fn all(&self) -> Vec<Id> {
        let names = fs::children(&self.dir).filter_map(|entry| Id::parse(entry.name.to_str()?));
        names.collect()
    }

    /// Returns the large reports of a capture. A file that cannot be read has none.
    pub fn read(&self, id: Id) -> Vec<Upload> {
        let data = fs::read_bounded(&self.dir.join(id.as_str()), MAX_FILE).unwrap_or_default();
        // Older versions wrote the last one only.
        let one = |_| serde_json::from_slice(&data).map(|upload| vec![upload]);
        serde_json::from_slice(&data).or_else(one).unwrap_or_default()
    }

    /// Returns what is known of an object of a capture in a remote.
    pub fn find(&self, id: Id, url: &str, key: &str) -> Option<Upload> {
        self.read(id).into_iter().find(|upload| upload.url == url && upload.key == key)
    }

    /// Records a large report of a capture. It must survive this process, but not the machine: without it, the upload starts again.
    pub fn write(&self, id: Id, upload: &Upload) -> Result<()> {
        let mut uploads = self.without(id, upload);
        uploads.push(upload.clone());
        self.write_all(id, &uploads)
    }

    /// Forgets a large report of a capture.
    pub fn forget(&self, id: Id, upload: &Upload) -> Result<()> {
        self.write_all(id, &self.without(id, upload))
    }

    /// Forgets a capture.
    pub fn remove(&self, id: Id) -> Result<()> {
        Ok(fs::remove_file(&self.dir.join(id.as_str()))?)
    }

    fn without(&self, id: Id, upload: &Upload) -> Vec<Upload> {
        let mut uploads = self.read(id);
        uploads.retain(|other| (&other.url, &other.key) != (&upload.url, &upload.key));
        uploads
    }

    fn write_all(&self, id: Id, uploads: &[Upload]) -> Result<()> {
        // Structs of strings and numbers can always be encoded.
        let data = serde_json::to_vec(uploads).unwrap_or_default();
        Ok(fs::write_atomic(&self.dir.join(id.as_str()), &data, Durability::Volatile)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "20260101T000000000Z-aaaaaaaa";

    fn upload(key: &str) -> Upload {
        Upload { url: "s3://acme".into(), key: key.into(), parts: vec!["one".into()], ..Upload::default() }
    }

    #[test]
    fn each_large_report_is_read_back_and_a_torn_file_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&Spot::hold(dir.path()).unwrap()).unwrap();
        let id: Id = ID.parse().unwrap();
        assert_eq!(journal.read(id), []);
        let done = Upload { completed_ms: 1, ..upload("a") };
        for upload in [&upload("a"), &upload("b"), &done] {
            journal.write(id, upload).unwrap();
        }
        assert_eq!((journal.read(id), journal.all()), (vec![upload("b"), done.clone()], vec![id]));
        assert_eq!(journal.find(id, "s3://acme", "a"), Some(done.clone()));
        assert_eq!(journal.find(id, "s3://other", "a"), None);
        journal.forget(id, &upload("b")).unwrap();
        assert_eq!(journal.read(id), [done]);
        std::fs::write(dir.path().join("uploads").join(ID), "[{\"sch").unwrap();
        assert_eq!(journal.read(id), []);
        journal.remove(id).unwrap();
        assert_eq!(journal.all(), []);
    }

    #[test]
    fn the_upload_of_an_older_version_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&Spot::hold(dir.path()).unwrap()).unwrap();
        let file = dir.path().join("uploads").join(ID);
        std::fs::write(file, r#"{"schema":1,"url":"s3://acme","key":"a","parts":["one"]}"#).unwrap();
        let id: Id = ID.parse().unwrap();
        let old = Upload { schema: 1, ..upload("a") };
        assert!(old.is_under_way());
        journal.write(id, &upload("b")).unwrap();
        assert_eq!(journal.read(id), [old, upload("b")]);
    }
}
