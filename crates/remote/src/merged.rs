//! Merged manifests: those of all stores of a day in few objects, so that a reader of many days and machines makes few requests. `gc`
//! writes them.
//!
//! A merged manifest quotes each manifest with the version that it had: the ETag, or the time of a file. A reader lists the manifests
//! all the same, and believes a quotation only while the manifest has that version and size. So a manifest that came late, or was
//! changed, is read itself, and nothing stale is served.
//!
//! ```text
//! {"quoted":"manifests/2026-11-28/web-1~4be11a02.jsonl","version":"\"5d41…\"","bytes":1234}
//! the lines of that manifest, 1,234 bytes
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};

use diagctl_fs::random_hex;
use diagctl_observe::clock;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::foreign;
use crate::keys::{self, Object};
use crate::output;

/// Number of manifests that are read at once.
pub const AT_ONCE: usize = 32;

/// Maximum size of a manifest, bytes. Those of diagctl are smaller.
pub const MAX_MANIFEST: u64 = 16 << 20;

/// A day with more manifests than this that no merged one quotes is merged anew.
const FEW: usize = 8;

/// Size of the quotations in one object, uncompressed, bytes. It may be exceeded by one manifest.
const FULL: usize = 16 << 20;

/// The most that a merged manifest may have uncompressed. Those of diagctl have less.
const MOST: u64 = FULL as u64 + 2 * MAX_MANIFEST;

/// The manifests of a listing, by key.
pub type Manifests = BTreeMap<String, Object>;

/// The line before the quotation of a manifest.
#[derive(Debug, Serialize, Deserialize)]
struct Quotation {
    quoted: String,
    version: String,
    bytes: u64,
}

/// Reads the merged manifests of a range of days. Each manifest that one of them quotes as it is now is given to `each` and taken out
/// of `manifests`.
pub async fn read(
    bucket: &Bucket,
    days: (Option<&str>, Option<&str>),
    manifests: &mut Manifests,
    mut each: impl FnMut(&Object, &[u8]),
) -> Result<()> {
    let merged = bucket.list_days("merged", days.0, days.1).await?;
    let mut read = fetch(bucket, merged);
    while let Some((object, data)) = read.next().await {
        match data {
            // Then the manifests are read themselves.
            Err(error) if foreign::is_of_object(&error) => output::note(&format!("skipped a merged manifest: {error}")),
            // One that is gone was replaced or deleted.
            data => {
                for data in data?.iter() {
                    if !quotations(data, manifests, &mut each) {
                        output::note(&format!(
                            "skipped the rest of a merged manifest: {} is damaged; the manifests themselves are read, so nothing is missing",
                            object.key
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

// Reads objects, many at once.
fn fetch(bucket: &Bucket, objects: Vec<Object>) -> impl StreamExt<Item = (Object, Result<Option<Vec<u8>>>)> + Unpin {
    let read = async |object: Object| {
        let data = bucket.read(&object.key, MAX_MANIFEST).await;
        (object, data)
    };
    Box::pin(stream::iter(objects).map(read).buffer_unordered(AT_ONCE))
}

// Returns false if the object is not one of ours to its end.
fn quotations(data: &[u8], manifests: &mut Manifests, each: &mut impl FnMut(&Object, &[u8])) -> bool {
    let mut content = Vec::new();
    if GzDecoder::new(data).take(MOST + 1).read_to_end(&mut content).is_err() || content.len() as u64 > MOST {
        return false;
    }
    let mut rest = content.as_slice();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let Ok(quotation) = serde_json::from_slice::<Quotation>(&rest[..end]) else { return false };
        let length = usize::try_from(quotation.bytes).unwrap_or(usize::MAX);
        let Some((quoted, after)) = rest[end + 1..].split_at_checked(length) else { return false };
        rest = after;
        let as_it_is = |object: &Object| {
            !object.version.is_empty() && object.version == quotation.version && object.bytes == quotation.bytes
        };
        if manifests.get(&quotation.quoted).is_some_and(as_it_is)
            && let Some(object) = manifests.remove(&quotation.quoted)
        {
            each(&object, quoted);
        }
    }
    rest.is_empty()
}

/// Merges the manifests of each past day of which many are not quoted yet.
pub async fn merge(bucket: &Bucket, now_ms: u64) -> Result<()> {
    let now = clock::utc(i64::try_from(now_ms).unwrap_or(0));
    let today = keys::day(&now);
    let mut days: BTreeMap<String, Manifests> = BTreeMap::new();
    for object in bucket.list_days("manifests", None, Some(today)).await? {
        let day = object.key.split('/').nth(1).unwrap_or_default().to_owned();
        days.entry(day).or_default().insert(object.key.clone(), object);
    }
    // Those of today are about to change.
    for (day, manifests) in days.into_iter().filter(|(day, manifests)| day != today && manifests.len() > FEW) {
        merge_day(bucket, &day, manifests).await?;
    }
    Ok(())
}

async fn merge_day(bucket: &Bucket, day: &str, mut manifests: Manifests) -> Result<()> {
    let of_day = (Some(day), Some(day));
    let replaced = bucket.list_days("merged", of_day.0, of_day.1).await?;
    let mut known: Vec<(Object, Vec<u8>)> = Vec::new();
    read(bucket, of_day, &mut manifests, |object, data| known.push((object.clone(), data.to_vec()))).await?;
    if manifests.len() <= FEW {
        return Ok(());
    }
    let mut writer = Writer::new(bucket, day)?;
    for (object, data) in &known {
        writer.quote(object, data).await?;
    }
    let mut read = fetch(bucket, manifests.into_values().collect());
    while let Some((object, data)) = read.next().await {
        match data {
            Ok(None) | Err(Error::TooLarge { .. }) => {}
            data => {
                for data in data?.iter() {
                    writer.quote(&object, data).await?;
                }
            }
        }
    }
    writer.finish().await?;
    bucket.delete(replaced.into_iter().map(|object| object.key).collect()).await
}

/// Writes the merged manifests of a day.
struct Writer<'b> {
    bucket: &'b Bucket,
    day: &'b str,
    out: GzEncoder<Vec<u8>>,
    bytes: usize,
}

impl<'b> Writer<'b> {
    fn new(bucket: &'b Bucket, day: &'b str) -> Result<Self> {
        Ok(Self { bucket, day, out: GzEncoder::new(Vec::new(), Compression::default()), bytes: 0 })
    }

    // One that was changed since it was listed is left out, and so is one without a version.
    async fn quote(&mut self, object: &Object, data: &[u8]) -> Result<()> {
        if data.len() as u64 != object.bytes || object.version.is_empty() {
            return Ok(());
        }
        let (quoted, version) = (object.key.clone(), object.version.clone());
        // A struct of strings and numbers can always be encoded, and a vector always takes more.
        let line = serde_json::to_vec(&Quotation { quoted, version, bytes: object.bytes }).unwrap_or_default();
        let parts = [line.as_slice(), b"\n", data];
        parts.iter().try_for_each(|part| self.out.write_all(part)).map_err(Error::Runtime)?;
        self.bytes += data.len() + line.len();
        if self.bytes > FULL { self.finish().await } else { Ok(()) }
    }

    async fn finish(&mut self) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let next = GzEncoder::new(Vec::new(), Compression::default());
        let data = std::mem::replace(&mut self.out, next).finish().map_err(Error::Runtime)?;
        self.bytes = 0;
        self.bucket.put(&keys::merged(self.day, &random_hex()?), data.into()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const DAY: &str = "2026-11-28";

    fn bucket(dir: &tempfile::TempDir) -> Bucket {
        Bucket::Directory(dir.path().to_owned().into())
    }

    // Writes the manifest of a machine, and returns its key.
    async fn write(bucket: &Bucket, machine: usize, content: &str) -> String {
        let key = keys::manifest(DAY, &format!("web-{machine}"), "0");
        bucket.put(&key, content.to_owned().into()).await.unwrap();
        key
    }

    async fn listed(bucket: &Bucket) -> Manifests {
        let found = bucket.list_days("manifests", None, None).await.unwrap();
        found.into_iter().map(|object| (object.key.clone(), object)).collect()
    }

    // Returns what merged manifests quote, and the manifests that must be read themselves.
    async fn state(bucket: &Bucket) -> (Vec<String>, Vec<String>) {
        let mut left = listed(bucket).await;
        let mut quoted = Vec::new();
        read(bucket, (None, None), &mut left, |_, data| quoted.push(String::from_utf8_lossy(data).into_owned()))
            .await
            .unwrap();
        quoted.sort_unstable();
        (quoted, left.into_keys().collect())
    }

    fn tomorrow() -> u64 {
        // 2026-11-29.
        1_795_910_400_000
    }

    #[tokio::test]
    async fn a_changed_or_late_manifest_is_read_itself_and_the_others_from_the_merged_one() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = bucket(&dir);
        for machine in 0..20 {
            write(&bucket, machine, &format!("line of {machine}\n")).await;
        }
        merge(&bucket, tomorrow() - DAY_MS).await.unwrap();
        assert_eq!(state(&bucket).await.0.len(), 0, "the day is not over");
        merge(&bucket, tomorrow()).await.unwrap();
        assert_eq!((state(&bucket).await.0.len(), state(&bucket).await.1), (20, vec![]));
        let late = write(&bucket, 20, "late\n").await;
        let changed = write(&bucket, 3, "line of 3\nanother\n").await;
        let same_size = write(&bucket, 4, "line of X\n").await;
        let (quoted, left) = state(&bucket).await;
        assert_eq!((quoted.len(), left), (18, vec![late, changed, same_size]));
        assert!(!quoted.contains(&"line of 3\n".to_owned()) && !quoted.contains(&"line of 4\n".to_owned()));
    }

    #[tokio::test]
    async fn merging_again_replaces_the_merged_one_once_enough_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = bucket(&dir);
        for machine in 0..12 {
            write(&bucket, machine, "x\n").await;
        }
        merge(&bucket, tomorrow()).await.unwrap();
        let first = bucket.list_days("merged", None, None).await.unwrap();
        write(&bucket, 12, "x\n").await;
        merge(&bucket, tomorrow()).await.unwrap();
        assert_eq!(bucket.list_days("merged", None, None).await.unwrap(), first, "one is too few");
        for machine in 13..30 {
            write(&bucket, machine, "x\n").await;
        }
        merge(&bucket, tomorrow()).await.unwrap();
        let second = bucket.list_days("merged", None, None).await.unwrap();
        assert_eq!((second.len(), second == first), (1, false));
        assert_eq!((state(&bucket).await.0.len(), state(&bucket).await.1), (30, vec![]));
    }

    #[tokio::test]
    async fn a_hostile_merged_manifest_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = bucket(&dir);
        let key = write(&bucket, 1, "true\n").await;
        let pack = |content: &[u8]| {
            let mut out = GzEncoder::new(Vec::new(), Compression::fast());
            out.write_all(content).unwrap();
            bytes::Bytes::from(out.finish().unwrap())
        };
        let lie = |version: &str, bytes: u64| {
            pack(format!("{{\"quoted\":{key:?},\"version\":{version:?},\"bytes\":{bytes}}}\nlies\n").as_bytes())
        };
        let forged = [lie("", 5), lie("another", 5), lie("x", u64::MAX), pack(b"[[[[\n"), b"no gzip".to_vec().into()];
        let bomb = pack(&vec![b'x'; usize::try_from(MOST).unwrap() + 100]);
        for data in forged.into_iter().chain([bomb]) {
            bucket.put(&keys::merged(DAY, "0"), data).await.unwrap();
            assert_eq!(state(&bucket).await, (vec![], vec![key.clone()]));
        }
    }
}
