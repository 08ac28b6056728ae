//! The deletion of captures, and the lists of those that were deleted.
//!
//! The record of a capture goes first, because a capture without one does not exist. Then the capture is noted as deleted, because
//! the node that shipped it may write its manifest anew, and at last its files go.
//!
//! A capture that was never shipped whole is not noted: its node may still ship it, and everyone must see it then. For the same reason, a note that
//! is older than the record of its capture is taken back.

use std::collections::{BTreeMap, BTreeSet};

use diagctl_fs::random_hex;
use diagctl_observe::clock;
use diagctl_store::Id;
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::error::Result;
use crate::keys::{self, Object};
use crate::merged::MAX_MANIFEST;
use crate::output;

/// A capture that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its machine.
    pub host: &'a str,
    /// The keys of its objects.
    pub keys: Vec<String>,
    /// True if readers have seen it, so that it must be noted as deleted.
    pub was_shipped: bool,
}

/// A line of a list of deleted captures.
#[derive(Debug, Serialize)]
struct Line<'a> {
    deleted: &'a str,
    host: &'a str,
    by: &'a str,
    at: String,
}

/// What a reader needs of such a line.
#[derive(Debug, Deserialize)]
struct Known {
    deleted: Id,
    host: String,
}

/// A capture by its id, and its host as it is in keys.
pub type Name = (String, String);

/// The lists of deleted captures.
#[derive(Debug, Default)]
pub struct Lists {
    /// The lists that name a capture, and their times, milliseconds.
    captures: BTreeMap<Name, Vec<(String, u64)>>,
}

impl Lists {
    /// Adds a list. A line that is damaged, or cut, is left out.
    pub fn add(&mut self, list: &Object, data: &[u8]) {
        for name in data.split(|byte| *byte == b'\n').filter_map(name_in) {
            self.captures.entry(name).or_default().push((list.key.clone(), list.written_ms));
        }
    }

    /// Returns true if a list names the capture.
    pub fn has(&self, id: Id, host: &str) -> bool {
        self.captures.contains_key(&(id.to_string(), keys::part(host)))
    }
}

// Returns the capture that a line names.
fn name_in(line: &[u8]) -> Option<Name> {
    let known: Known = serde_json::from_slice(line).ok()?;
    Some((known.deleted.to_string(), keys::part(&known.host)))
}

/// Deletes captures of one day: first their records, and then, when they are noted as deleted, their files.
pub async fn delete(bucket: &Bucket, day: &str, doomed: Vec<Doomed<'_>>, by: &str) -> Result<()> {
    let lines = doomed.iter().filter(|capture| capture.was_shipped).map(|capture| {
        let line = Line { deleted: capture.id, host: capture.host, by, at: clock::utc_now() };
        // A struct of strings can always be encoded.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    });
    let list = lines.collect::<String>();
    let keys = doomed.into_iter().flat_map(|capture| capture.keys);
    let (records, files): (Vec<String>, Vec<String>) = keys.partition(|key| key.ends_with("/meta.json"));
    bucket.delete(records).await?;
    if !list.is_empty() {
        bucket.put(&keys::deleted(day, &random_hex()?), list.into()).await?;
    }
    bucket.delete(files).await
}

/// Takes captures out of the lists that are older than their records: a node has shipped them again. `records` has the times of the records.
pub async fn lift(bucket: &Bucket, records: &BTreeMap<Name, u64>, lists: &Lists) -> Result<()> {
    let mut lifted: BTreeMap<&str, BTreeSet<&Name>> = BTreeMap::new();
    for (name, record_ms) in records {
        let Some(lists) = lists.captures.get(name) else { continue };
        if lists.iter().all(|(_, written_ms)| written_ms < record_ms) {
            output::note(&format!(
                "{} of {} was shipped again after it was deleted, and is listed again",
                name.0, name.1
            ));
            for (list, _) in lists {
                lifted.entry(list).or_default().insert(name);
            }
        }
    }
    for (list, names) in lifted {
        let Some(data) = bucket.read(list, MAX_MANIFEST).await? else { continue };
        let stays = |line: &&[u8]| name_in(line).is_none_or(|name| !names.contains(&name));
        let left: Vec<u8> = data.split_inclusive(|byte| *byte == b'\n').filter(stays).flatten().copied().collect();
        if left.is_empty() {
            bucket.delete(vec![list.to_owned()]).await?
        } else {
            bucket.put(list, left.into()).await?
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_capture_is_lifted_only_if_its_record_is_newer_than_every_list_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().into());
        let ids = ["a", "b", "c"].map(|letter| format!("20261128T100000000Z-{}", letter.repeat(8)));
        let line = |id: &String| format!("{{\"deleted\":\"{id}\",\"host\":\"web 1\"}}\n");
        let lists = [("0", 100, line(&ids[0]) + &line(&ids[1])), ("1", 200, line(&ids[1])), ("2", 100, line(&ids[2]))];
        let mut known = Lists::default();
        for (random, written_ms, content) in &lists {
            let key = keys::deleted("2026-11-28", random);
            bucket.put(&key, content.clone().into()).await.unwrap();
            let list = Object { key, bytes: 0, version: String::new(), written_ms: *written_ms };
            known.add(&list, content.as_bytes());
        }
        let records = ids.iter().map(|id| ((id.clone(), "web_1".to_owned()), 150)).collect();
        lift(&bucket, &records, &known).await.unwrap();
        let left = async |random: &str| {
            let data = bucket.read(&keys::deleted("2026-11-28", random), 4096).await.unwrap();
            data.map(|data| String::from_utf8(data).unwrap())
        };
        assert_eq!(left("0").await, Some(line(&ids[1])));
        assert_eq!(left("1").await, Some(line(&ids[1])));
        assert_eq!(left("2").await, None);
    }
}
