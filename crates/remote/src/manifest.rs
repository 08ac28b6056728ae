//! The manifests: what a store shipped, day by day, so that a reader lists days instead of objects.
//!
//! Each store writes objects of its own, whole, from a copy that it keeps; nodes never change what another one wrote. When the
//! copy is lost, for example with the pod, the store starts a new object beside the old one. So it does when the object has lines that the
//! copy lacks: the store was rolled back, or another one has the same copy. Readers merge them.

use std::collections::{BTreeSet, HashSet};

use diagctl_fs::{self as fs, Durability, Spot};
use diagctl_store::index::Entry;

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::keys;

/// Maximum size of a manifest, bytes. A larger one is followed by another.
const MAX_FILE: u64 = 4 << 20;

/// The URL of the remote that has them. Another remote gets manifests of its own, because it has none of those captures.
const URL: &str = ".url";

/// Maximum size of a URL, bytes.
const MAX_URL: u64 = 64 << 10;

/// Says that there were copies, and that captures were sent to the remote.
const BEGUN_ANEW: &str = ".anew";

/// Number of days for which the copies are kept.
pub const DAYS: usize = 40;

/// The copies of the manifests.
#[derive(Debug)]
pub struct Manifests {
    dir: Spot,
    /// The copies that the remote does not have yet, with the host.
    changed: BTreeSet<(String, String)>,
    /// Those that cannot overwrite a line of the remote.
    checked: BTreeSet<(String, String)>,
}

/// Has the store begin new objects beside those that it, or the store of which it is a copy, has written.
pub fn begin_anew(remote: &Spot) -> Result<()> {
    let dir = remote.join("manifests");
    let names = names(&dir);
    if !names.is_empty() {
        fs::write_atomic(&dir.join(BEGUN_ANEW), b"", Durability::Volatile)?;
    }
    Ok(names.iter().try_for_each(|name| fs::remove_file(&dir.join(name)))?)
}

/// Returns true if captures were sent to this URL in the last days. Changes nothing.
pub fn were_sent(remote: &Spot, url: &str) -> bool {
    let dir = remote.join("manifests");
    let is_of_url = fs::read_bounded(&dir.join(URL), MAX_URL).map_or(true, |known| known == url.as_bytes());
    is_of_url && !is_empty(&dir)
}

fn is_empty(dir: &Spot) -> bool {
    names(dir).is_empty() && !dir.join(BEGUN_ANEW).is_file()
}

// The names of the copies.
fn names(dir: &Spot) -> BTreeSet<String> {
    let names = fs::children(dir).filter_map(|entry| entry.name.into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

impl Manifests {
    /// Opens the copies in the shipper's directory, of what went to this URL.
    pub fn open(remote: &Spot, url: &str) -> Result<Self> {
        let dir = remote.join("manifests");
        if !dir.is_dir() {
            fs::create_dir(&dir, 0o700)?;
        }
        let manifests = Self { dir, changed: BTreeSet::new(), checked: BTreeSet::new() };
        let place = manifests.dir.join(URL);
        // Copies of an older version are without a URL, and taken for this one's.
        let known = fs::read_bounded(&place, MAX_URL).unwrap_or_else(|_| url.into());
        if known != url.as_bytes() {
            for name in manifests.names() {
                fs::remove_file(&manifests.dir.join(&name))?;
            }
            fs::remove_file(&manifests.dir.join(BEGUN_ANEW))?;
        }
        fs::write_atomic(&place, url.as_bytes(), Durability::Volatile)?;
        Ok(manifests)
    }

    /// Returns true if nothing was sent to the remote in the last days.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.dir)
    }

    /// Adds a capture to the manifest of its day.
    pub fn add(&mut self, entry: &Entry) -> Result<()> {
        let name = self.name(keys::day(&entry.created))?;
        // An entry of the index can always be encoded.
        let line = serde_json::to_vec(entry).unwrap_or_default();
        let copy = self.dir.join(&name);
        if !copy.exists() {
            self.checked.insert((name.clone(), entry.host.clone()));
        }
        fs::append_line(&copy, &line, Durability::Volatile)?;
        self.changed.insert((name, entry.host.clone()));
        Ok(())
    }

    /// Writes the changed manifests to the remote.
    pub async fn send(&mut self, bucket: &Bucket) -> Result<()> {
        while let Some((name, host)) = self.changed.first().cloned() {
            let data = match fs::read_bounded(&self.dir.join(&name), MAX_FILE * 2) {
                // Another shipper of a shared store has begun anew. The captures still wait, and get a new copy.
                Err(error) if error.is_not_found() => {
                    self.forget(&name);
                    return Err(error.into());
                }
                read => read?,
            };
            let data = without_damaged(&data);
            let (day, random) = name.trim_end_matches(".jsonl").split_once('~').unwrap_or((&name, "0"));
            let key = keys::manifest(day, &host, random);
            if !self.checked.contains(&(name.clone(), host.clone())) {
                if has_more(bucket, &key, &data).await? {
                    self.rename(&name, day)?;
                    continue;
                }
                self.checked.insert((name.clone(), host.clone()));
            }
            bucket.put(&key, data.into()).await?;
            self.changed.remove(&(name, host));
        }
        self.forget_old();
        Ok(())
    }

    fn forget(&mut self, name: &str) {
        self.changed.retain(|(changed, _)| changed != name);
        self.checked.retain(|(checked, _)| checked != name);
    }

    // Gives a copy a name that no object has.
    fn rename(&mut self, name: &str, day: &str) -> Result<()> {
        let fresh = new_name(day)?;
        fs::rename(&self.dir.join(name), &self.dir.join(&fresh))?;
        let changed = std::mem::take(&mut self.changed);
        let (renamed, others): (BTreeSet<_>, _) = changed.into_iter().partition(|(changed, _)| changed == name);
        self.changed = others;
        for (_, host) in renamed {
            self.changed.insert((fresh.clone(), host.clone()));
            self.checked.insert((fresh.clone(), host));
        }
        Ok(())
    }

    // Returns the name of the copy for a day: one that exists, or a new one.
    fn name(&self, day: &str) -> Result<String> {
        let small = |name: &String| self.dir.join(name).stat().is_ok_and(|stat| stat.st_size.unsigned_abs() < MAX_FILE);
        let known = self.names().into_iter().rev().find(|name| name.starts_with(day) && small(name));
        known.map_or_else(|| new_name(day), Ok)
    }

    fn names(&self) -> BTreeSet<String> {
        names(&self.dir)
    }

    fn forget_old(&self) {
        let names = self.names();
        let days: BTreeSet<&str> = names.iter().map(|name| keys::day(name)).collect();
        let Some(oldest) = days.iter().rev().nth(DAYS - 1) else { return };
        for name in names.iter().filter(|name| keys::day(name) < *oldest) {
            // A copy that stays costs a few kilobytes.
            let _ = fs::remove_file(&self.dir.join(name));
        }
    }
}

fn new_name(day: &str) -> Result<String> {
    Ok(format!("{day}~{}.jsonl", fs::random_hex()?))
}

// Leaves out lines that a power cut, or somebody, has damaged: readers could not tell what they have said.
fn without_damaged(data: &[u8]) -> Vec<u8> {
    let whole = lines(data).filter(|line| serde_json::from_slice::<Entry>(line).is_ok());
    whole.flat_map(|line| line.iter().chain(b"\n")).copied().collect()
}

// Returns true if the remote has lines that would be lost. A damaged one is mended by this, unless the copy has fewer lines: then it may have
// been a capture that the copy lacks. Credentials that may only write cannot tell.
async fn has_more(bucket: &Bucket, key: &str, data: &[u8]) -> Result<bool> {
    let there = match bucket.read(key, MAX_FILE * 2).await {
        Err(error) if error.is_denied() => return Ok(false),
        Err(Error::TooLarge { .. }) => return Ok(true),
        read => read?.unwrap_or_default(),
    };
    let known: HashSet<&[u8]> = lines(data).collect();
    let whole = without_damaged(&there);
    Ok(lines(&there).count() > lines(data).count() || lines(&whole).any(|line| !known.contains(line)))
}

fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_one_manifest_a_day_and_forgets_old_copies() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifests = Manifests::open(&Spot::hold(dir.path()).unwrap(), "s3://bucket/fleet").unwrap();
        for day in 10..28 {
            for month in 1..4 {
                let created = format!("2026-{month:02}-{day}T10:00:00Z");
                let entry = Entry { created, host: "web-1".into(), ..Entry::default() };
                manifests.add(&entry).unwrap();
                manifests.add(&entry).unwrap();
            }
        }
        assert_eq!((manifests.names().len(), manifests.changed.len()), (54, 54));
        let one = manifests.names().pop_first().unwrap();
        assert_eq!(fs::read_bounded(&manifests.dir.join(&one), 4096).unwrap().split(|b| *b == b'\n').count(), 3);
        manifests.forget_old();
        assert_eq!(manifests.names().len(), DAYS);
        assert!(!manifests.names().contains(&one));
    }

    #[tokio::test]
    async fn a_copy_that_another_shipper_has_deleted_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Spot::hold(dir.path()).unwrap();
        let bucket = Bucket::Directory(tempfile::tempdir().unwrap().keep().into());
        let mut manifests = Manifests::open(&remote, "file://").unwrap();
        let entry = Entry { created: "2026-11-28T10:00:00Z".into(), host: "web-1".into(), ..Entry::default() };
        manifests.add(&entry).unwrap();
        begin_anew(&remote).unwrap();
        manifests.send(&bucket).await.unwrap_err();
        manifests.add(&entry).unwrap();
        manifests.send(&bucket).await.unwrap();
        let there = bucket.list_under("manifests/2026-11-28").await.unwrap();
        assert_eq!(there.len(), 1);
    }

    #[tokio::test]
    async fn the_next_shipment_mends_a_damaged_manifest_and_sends_no_damaged_line() {
        let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bucket = Bucket::Directory(files.path().into());
        let remote = Spot::hold(dir.path()).unwrap();
        let entry = |n: u64| Entry {
            id: format!("20261128T10000000{n}Z-aaaaaaaa").parse().unwrap(),
            created: "2026-11-28T10:00:00Z".into(),
            host: "web-1".into(),
            ..Entry::default()
        };
        let sent = async |n: u64| {
            let mut manifests = Manifests::open(&remote, "file://").unwrap();
            manifests.add(&entry(n)).unwrap();
            manifests.send(&bucket).await.unwrap();
            let mut objects = bucket.list_under("manifests/2026-11-28").await.unwrap();
            objects.sort_by_key(|object| object.written_ms);
            let data = bucket.read(&objects[0].key, MAX_FILE).await.unwrap().unwrap();
            (objects.len(), objects[0].key.clone(), String::from_utf8(data).unwrap())
        };
        let (_, key, first) = sent(1).await;
        bucket.put(&key, first.replacen('{', "", 1).into()).await.unwrap();
        let copy = remote.join("manifests").join(names(&remote.join("manifests")).first().unwrap());
        fs::append_raw(&copy, b"\0\0{\"id\":").unwrap();
        let (count, _, mended) = sent(2).await;
        assert_eq!((count, mended.lines().count(), mended.starts_with(&first)), (1, 2, true), "{mended}");
        // The copy was rolled back: the damaged line may be what it lacks.
        fs::write_atomic(&copy, first.as_bytes(), Durability::Volatile).unwrap();
        let damaged = format!("{mended}{{\n");
        bucket.put(&key, damaged.clone().into()).await.unwrap();
        let (count, _, _) = sent(2).await;
        assert_eq!(count, 2, "a manifest beside it");
        assert_eq!(bucket.read(&key, MAX_FILE).await.unwrap().unwrap(), damaged.as_bytes());
    }

    #[test]
    fn another_remote_is_told_nothing_of_what_the_first_one_has() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Spot::hold(dir.path()).unwrap();
        let mut manifests = Manifests::open(&remote, "s3://one").unwrap();
        manifests.add(&Entry { created: "2026-11-28T10:00:00Z".into(), ..Entry::default() }).unwrap();
        assert_eq!(["s3://one", "s3://two"].map(|url| were_sent(&remote, url)), [true, false]);
        assert_eq!(Manifests::open(&remote, "s3://one").unwrap().names(), manifests.names());
        assert!(Manifests::open(&remote, "s3://two").unwrap().names().is_empty());
        assert!(Manifests::open(&remote, "s3://one").unwrap().names().is_empty(), "it begins a new one there");
    }
}
