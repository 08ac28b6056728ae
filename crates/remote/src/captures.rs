//! `captures`: prints the captures in the remote, newest first, a line of JSON each. `diagctl list --remote` reads it.
//!
//! Reads the manifests only, from the merged ones as far as those quote them. Another node wrote them, so nothing in them is trusted: a line must be a plausible entry, and a
//! manifest has a maximum size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use diagctl_store::Id;
use diagctl_store::index::Entry;
use futures_util::{StreamExt, stream};

use crate::bucket::Bucket;
use crate::deletion::Lists;
use crate::error::{Error, Result, UNREADABLE};
use crate::foreign;
use crate::keys::{self, Object};
use crate::manifest::DAYS;
use crate::merged::{self, AT_ONCE, MAX_MANIFEST, Manifests};
use crate::output::{self, Exit};
use crate::settings::{Remote, Settings};

/// The number of unreadable manifests that are named.
const MOST_TOLD: usize = 3;

/// Print the captures in the remote, for `diagctl list --remote`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only captures of this day (UTC, 2026-11-28) or later
    #[arg(long, value_name = "DAY")]
    since_day: Option<String>,
    /// Only captures of this day or earlier
    #[arg(long, value_name = "DAY")]
    until_day: Option<String>,
}

/// The captures of all manifests. Two machines may have the same id.
#[derive(Debug, Default)]
pub struct Listing {
    captures: BTreeMap<(Id, String), Entry>,
    deleted: Lists,
    /// The failures of manifests that were left out.
    unreadable: Vec<Error>,
    /// The manifests with lines that were left out, and their number.
    damaged: BTreeMap<String, usize>,
}

/// Runs the command.
///
/// # Errors
///
/// If the manifests cannot be listed or read.
pub async fn run(args: &Args, settings: &Settings) -> Result<Exit> {
    let bucket = Bucket::open(&settings.remote)?;
    let listing = read(&bucket, args.since_day.as_deref(), args.until_day.as_deref()).await?;
    listing.tell_damaged(&settings.remote);
    listing.tell_unreadable();
    print(listing.newest_first()).map_err(Error::Runtime)?;
    tell_unused(&bucket);
    Ok(Exit::Ok)
}

/// Says if the remote is a directory to which nothing was ever sent.
pub fn tell_unused(bucket: &Bucket) {
    if let Some(dir) = bucket.unused_directory() {
        output::note(&format!("nothing was ever sent to {}; if it is a share, is it mounted here?", dir.display()));
    }
}

/// Reads the manifests of a range of days. Those that cannot be read are left out.
///
/// # Errors
///
/// If the remote fails, or refuses every manifest.
pub async fn read(bucket: &Bucket, since_day: Option<&str>, until_day: Option<&str>) -> Result<Listing> {
    let wanted = bucket.list_days("manifests", since_day, until_day).await?;
    let mut wanted: Manifests = wanted.into_iter().map(|object| (object.key.clone(), object)).collect();
    let mut listing = Listing::default();
    let mut count = 0;
    let quoted = |object: &Object, data: &[u8]| {
        count += 1;
        listing.add(object, data);
    };
    merged::read(bucket, (since_day, until_day), &mut wanted, quoted).await?;
    let fetch = |object: Object| async move { (bucket.read(&object.key, MAX_MANIFEST).await, object) };
    let mut manifests = stream::iter(wanted.into_values()).map(fetch).buffer_unordered(AT_ONCE);
    while let Some((manifest, object)) = manifests.next().await {
        match manifest {
            Err(error) if foreign::is_of_object(&error) => listing.unreadable.push(error),
            manifest => {
                count += 1;
                // One that is gone was deleted by the lifecycle rule.
                manifest?.iter().for_each(|data| listing.add(&object, data));
            }
        }
    }
    listing.share_pins();
    // What is refused of every manifest is a matter of the credentials, or of the share.
    let is_refused = |error: &Error| !matches!(error, Error::TooLarge { .. });
    match listing.unreadable.iter().position(is_refused) {
        Some(first) if count == 0 => Err(listing.unreadable.swap_remove(first)),
        _ => Ok(listing),
    }
}

impl Listing {
    // Adds what is in a manifest. A line that is damaged, or cut, is left out, and counted.
    fn add(&mut self, object: &Object, data: &[u8]) {
        if keys::is_deleted(&object.key) {
            return self.deleted.add(object, data);
        }
        let honest = |entry: &Entry| entry.is_plausible() && is_of_its_time(entry);
        // diagctl never writes an empty one.
        if data.is_empty() {
            self.damaged.insert(object.key.clone(), 1);
        }
        for line in data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Some(mut entry) = serde_json::from_slice::<Entry>(line).ok().filter(honest) else {
                *self.damaged.entry(object.key.clone()).or_default() += 1;
                continue;
            };
            // Manifests come in no particular order, so a pin counts wherever it is.
            let key = (entry.id, entry.host.clone());
            entry.pinned |= self.captures.get(&key).is_some_and(|known| known.pinned);
            self.captures.insert(key, entry);
        }
    }

    // Pins a capture that is pinned under another spelling of its host: both are one place in the remote.
    fn share_pins(&mut self) {
        let place_of = |entry: &Entry| (entry.id, keys::part(&entry.host));
        let pinned: BTreeSet<_> = self.pinned().map(place_of).collect();
        self.captures.values_mut().for_each(|entry| entry.pinned |= pinned.contains(&place_of(entry)));
    }

    /// Names the manifests with lines that were left out, and how each is restored.
    pub fn tell_damaged(&self, remote: &Remote) {
        for (key, lines) in self.damaged.iter().take(MOST_TOLD) {
            let plural = if *lines == 1 { "a damaged line" } else { "damaged lines" };
            output::note(&format!("skipped {plural} of {key}: captures may be missing here that are in the remote"));
            let restored = restoration(key, remote).map(|(machine, command)| {
                format!(
                    "the store of {machine} has a copy of its last {DAYS} days: `{command}` there restores it, with the store's directory \
                     for STORE; or "
                )
            });
            let restored = restored.unwrap_or_default();
            output::hint(&format!(
                "{restored}restore an earlier version of the object; do not delete it: it may say that captures are pinned"
            ));
        }
        if self.damaged.len() > MOST_TOLD {
            output::note(&format!("skipped lines of {} further manifests", self.damaged.len() - MOST_TOLD));
        }
    }

    /// Names the manifests that were left out.
    fn tell_unreadable(&self) {
        for error in self.unreadable.iter().take(MOST_TOLD) {
            output::note(&format!("skipped a manifest: {error}"));
        }
        if self.unreadable.len() > MOST_TOLD {
            output::note(&format!("skipped {} further manifests", self.unreadable.len() - MOST_TOLD));
        }
        if !self.unreadable.is_empty() {
            output::hint(UNREADABLE);
        }
    }

    /// Fails if a manifest was left out: nobody knows what is pinned there.
    pub fn require_whole(&mut self) -> Result<()> {
        let count = self.unreadable.len();
        self.unreadable.pop().map_or(Ok(()), |one| Err(Error::UnknownPins { count, one: Box::new(one) }))
    }

    /// Returns the number of manifests that were left out, and of those with lines that were left out.
    pub fn left_out(&self) -> (usize, usize) {
        (self.unreadable.len(), self.damaged.len())
    }

    /// Returns the days with manifests of which lines were left out.
    pub fn damaged_days(&self) -> impl Iterator<Item = &str> {
        self.damaged.keys().filter_map(|key| key.split('/').nth(1))
    }

    /// Returns the captures that were not deleted.
    pub fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.captures.values().rev().filter(|entry| !self.is_deleted(entry))
    }

    /// Returns the captures that were pinned when they were shipped, also of those that were deleted: a node may have shipped one again.
    pub fn pinned(&self) -> impl Iterator<Item = &Entry> {
        self.captures.values().filter(|entry| entry.pinned)
    }

    /// Returns the lists of deleted captures.
    pub fn deleted(&self) -> &Lists {
        &self.deleted
    }

    fn is_deleted(&self, entry: &Entry) -> bool {
        self.deleted.has(entry.id, &entry.host)
    }
}

// Returns the machine whose store has a copy of a manifest, and the command that puts it back. The store names it after the day alone.
fn restoration(key: &str, remote: &Remote) -> Option<(String, String)> {
    let (day, name) = key.strip_prefix("manifests/")?.split_once('/')?;
    let (machine, random) = name.rsplit_once('~')?;
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    // Whoever may write to the remote may have named it.
    if ![day, machine, random].into_iter().all(is_plain) {
        return None;
    }
    let copy = format!("STORE/remote/manifests/{day}~{random}");
    let url = remote.url.trim_end_matches('/');
    let (scheme, place) = url.split_once("://")?;
    let endpoint = remote.endpoint.as_ref().map(|endpoint| format!(" --endpoint-url {endpoint}")).unwrap_or_default();
    let command = match scheme {
        "s3" => format!("aws s3 cp{endpoint} {copy} '{url}/{key}'"),
        "gs" => format!("gcloud storage cp {copy} '{url}/{key}'"),
        "az" => {
            let (container, prefix) =
                place.split_once('/').map_or((place, String::new()), |(c, p)| (c, format!("{p}/")));
            format!("az storage blob upload --overwrite -f {copy} -c '{container}' -n '{prefix}{key}'")
        }
        _ => format!("cp {copy} '{place}/{key}'"),
    };
    Some((machine.to_owned(), command))
}

// True if the time of an entry is that with which its id begins. Another one would lead to another place than that of the capture.
fn is_of_its_time(entry: &Entry) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    keys::day(&entry.created) != keys::NO_DAY && digits(entry.id.as_str()).starts_with(&digits(&entry.created))
}

fn print<'e>(entries: impl Iterator<Item = &'e Entry>) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for entry in entries {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> Object {
        Object { key: key.into(), bytes: 0, version: String::new(), written_ms: 0 }
    }

    #[test]
    fn a_hostile_manifest_adds_nothing_and_hides_nothing() {
        let line = |id: &str, more: &str| {
            format!("{{\"id\":\"{id}\",\"created\":\"2026-11-28T10:00:00Z\",\"host\":\"web-1\"{more}}}")
        };
        let good = "20261128T100000000Z-aaaaaaaa";
        let lines = [
            line("../../etc/passwd", ""),
            line("20261128T100000000Z-bbbbbbbb", &format!(",\"disk_bytes\":{}", u64::MAX)),
            "{\"id\":\"20261128T100000000Z-cccccccc\",\"created\":\"../..\"}".to_owned(),
            "[".repeat(100_000),
            line(good, ""),
            line(good, ",\"pinned\":true"),
            line(good, "").replace("2026-11-28T", "2020-01-01T"),
            line(good, "").replace("T10:", "T11:"),
            line("20261128T100000000Z-dddddddd", "")[..60].to_owned(),
        ];
        let mut listing = Listing::default();
        listing.add(&object("manifests/2026-11-28/web-1~0.jsonl"), lines.join("\n").as_bytes());
        assert_eq!(listing.newest_first().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), [good]);
    }

    #[test]
    fn a_damaged_manifest_is_restored_from_the_store_that_wrote_it() {
        let key = "manifests/2026-11-28/web-1~4be11a02.jsonl";
        let copy = "STORE/remote/manifests/2026-11-28~4be11a02.jsonl";
        let table = [
            ("s3://acme/prod", None, format!("aws s3 cp {copy} 's3://acme/prod/{key}'")),
            (
                "s3://acme",
                Some("http://minio:9000"),
                format!("aws s3 cp --endpoint-url http://minio:9000 {copy} 's3://acme/{key}'"),
            ),
            ("gs://acme/prod/", None, format!("gcloud storage cp {copy} 'gs://acme/prod/{key}'")),
            ("az://dumps/a/b", None, format!("az storage blob upload --overwrite -f {copy} -c 'dumps' -n 'a/b/{key}'")),
            ("az://dumps", None, format!("az storage blob upload --overwrite -f {copy} -c 'dumps' -n '{key}'")),
            ("file:///mnt/share", None, format!("cp {copy} '/mnt/share/{key}'")),
        ];
        for (url, endpoint, expected) in table {
            let remote: Remote =
                serde_json::from_value(serde_json::json!({ "url": url, "endpoint": endpoint })).unwrap();
            assert_eq!(restoration(key, &remote), Some(("web-1".to_owned(), expected)), "{url}");
            for hostile in
                ["manifests/2026-11-28/a';reboot;'~0.jsonl", "manifests/x y/web-1~0.jsonl", "manifests/web-1"]
            {
                assert_eq!(restoration(hostile, &remote), None, "{hostile}");
            }
        }
    }

    #[test]
    fn a_capture_is_pinned_if_any_line_says_so_and_deleted_by_the_host_of_its_key() {
        let id = "20261128T100000000Z-aaaaaaaa";
        let line = |pinned: bool, host: &str| {
            format!(
                "{{\"id\":\"{id}\",\"created\":\"2026-11-28T10:00:00Z\",\"host\":\"{host}\",\"pinned\":{pinned}}}\n"
            )
        };
        let odd = "web 1+é";
        for order in [[true, false], [false, true]] {
            let mut listing = Listing::default();
            for (n, pinned) in order.into_iter().enumerate() {
                listing.add(&object(&format!("manifests/2026-11-28/web-1~{n}.jsonl")), line(pinned, odd).as_bytes());
            }
            assert_eq!(listing.newest_first().map(|entry| entry.pinned).collect::<Vec<_>>(), [true], "{order:?}");
            for host in [odd, "web_1__"] {
                listing.deleted = Lists::default();
                let deleted = format!("{{\"deleted\":\"{id}\",\"host\":\"{host}\"}}\n");
                listing.add(&object("manifests/2026-11-28/~deleted~0.jsonl"), deleted.as_bytes());
                assert_eq!((listing.newest_first().count(), listing.pinned().count()), (0, 1), "{host}");
            }
        }
    }

    #[tokio::test]
    async fn a_capture_is_pinned_under_every_spelling_of_its_host() {
        let line = |host: &str, pinned: bool| {
            format!(
                "{{\"id\":\"20261128T100000000Z-aaaaaaaa\",\"created\":\"2026-11-28T10:00:00Z\",\"host\":\"{host}\",\"pinned\":{pinned}}}\n"
            )
        };
        for hosts in [["web_1", "web 1"], ["web 1", "web_1"]] {
            let dir = tempfile::tempdir().unwrap();
            let bucket = Bucket::Directory(dir.path().into());
            for (host, pinned) in [(hosts[0], true), (hosts[1], false), ("web_2", false)] {
                let key = keys::manifest("2026-11-28", host, if pinned { "0" } else { "1" });
                bucket.put(&key, line(host, pinned).into()).await.unwrap();
            }
            let listing = read(&bucket, None, None).await.unwrap();
            let found: Vec<_> = listing.newest_first().map(|entry| (entry.host.as_str(), entry.pinned)).collect();
            assert_eq!(found, [("web_2", false), ("web_1", true), ("web 1", true)], "{hosts:?}");
        }
    }

    #[tokio::test]
    async fn a_manifest_that_cannot_be_read_hides_no_other_and_leaves_the_pins_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().into());
        let too_large = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
        bucket.put("manifests/2026-11-28/web-1~0.jsonl", too_large.into()).await.unwrap();
        let line =
            "{\"id\":\"20261128T100000000Z-aaaaaaaa\",\"created\":\"2026-11-28T10:00:00Z\",\"host\":\"web-2\"}\n";
        bucket.put("manifests/2026-11-28/web-2~0.jsonl", line.into()).await.unwrap();
        let mut listing = read(&bucket, None, None).await.unwrap();
        assert_eq!(listing.newest_first().count(), 1);
        let why = listing.require_whole().unwrap_err().to_string();
        assert!(why.contains("1 manifest cannot be read") && why.contains("web-1~0.jsonl"), "{why}");
    }

    #[test]
    fn a_deleted_capture_is_left_out_and_its_namesake_of_another_machine_is_not() {
        let id = "20261128T100000000Z-aaaaaaaa";
        let line =
            |host: &str| format!("{{\"id\":\"{id}\",\"created\":\"2026-11-28T10:00:00Z\",\"host\":\"{host}\"}}\n");
        let mut listing = Listing::default();
        let deleted = format!("{{\"deleted\":\"{id}\",\"host\":\"web-1\"}}\n{{\"dele");
        listing.add(&object("manifests/2026-11-28/~deleted~0.jsonl"), deleted.as_bytes());
        listing.add(&object("manifests/2026-11-28/web-1~0.jsonl"), (line("web-1") + &line("web-2")).as_bytes());
        assert_eq!(listing.newest_first().map(|entry| entry.host.as_str()).collect::<Vec<_>>(), ["web-2"]);
    }
}
