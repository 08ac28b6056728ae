//! The journal of the multipart upload that a shipper is at. If it is killed, the next one sends only what is missing.

use diagctl_fs::{self as fs, Durability, Spot};
use diagctl_store::Id;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Maximum size of a file of the journal, bytes: 10,000 parts of some hundred bytes.
const MAX_FILE: u64 = 8 << 20;

/// A multipart upload that has begun.
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

    /// Returns the captures with an upload that has begun. A file that cannot be read as one is removed.
    pub fn all(&self) -> Vec<Id> {
        let names = fs::children(&self.dir).filter_map(|entry| Id::parse(entry.name.to_str()?));
        names.collect()
    }

    /// Returns the upload of a capture.
    pub fn read(&self, id: Id) -> Option<Upload> {
        let data = fs::read_bounded(&self.dir.join(id.as_str()), MAX_FILE).ok()?;
        serde_json::from_slice(&data).ok()
    }

    /// Records the upload of a capture. It must survive this process, but not the machine: without it, the upload starts again.
    pub fn write(&self, id: Id, upload: &Upload) -> Result<()> {
        // A struct of strings and numbers can always be encoded.
        let data = serde_json::to_vec(upload).unwrap_or_default();
        Ok(fs::write_atomic(&self.dir.join(id.as_str()), &data, Durability::Volatile)?)
    }

    /// Forgets the upload of a capture.
    pub fn remove(&self, id: Id) -> Result<()> {
        Ok(fs::remove_file(&self.dir.join(id.as_str()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_read_back_and_a_torn_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&Spot::hold(dir.path()).unwrap()).unwrap();
        let id: Id = "20260101T000000000Z-aaaaaaaa".parse().unwrap();
        let upload = Upload { key: "k".into(), parts: vec!["one".into()], ..Upload::default() };
        assert_eq!(journal.read(id), None);
        journal.write(id, &upload).unwrap();
        assert_eq!((journal.read(id), journal.all()), (Some(upload), vec![id]));
        std::fs::write(dir.path().join("uploads").join(id.as_str()), "{\"sch").unwrap();
        assert_eq!(journal.read(id), None);
        journal.remove(id).unwrap();
        assert_eq!(journal.all(), []);
    }
}
