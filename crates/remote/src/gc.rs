//! `rm` and `gc`: delete captures in the remote. Only a person runs them: a node never deletes what it has shipped.
//!
//! A run that is killed is finished by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use diagctl_observe::clock;
use diagctl_store::index::Entry;
use diagctl_store::{Id, units};
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::captures;
use crate::deletion::{self, Doomed, delete};
use crate::error::{Error, Result};
use crate::keys::{self, Object};
use crate::merged;
use crate::output::{self, Exit};
use crate::probe;
use crate::settings::Settings;

/// Files without a record, and captures in no manifest, that are younger than this may be under way.
const UNFINISHED_MS: u64 = 2 * DAY_MS;

/// A day of which nothing is left keeps its lists of deleted captures for so long, because nodes may write old manifests anew.
const DELETED_MS: u64 = 30 * DAY_MS;

const DAY_MS: u64 = 86_400_000;

/// Delete captures in the remote, for `diagctl rm --remote`
///
/// Reads a line of JSON for each capture from stdin.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// The person
    #[arg(long)]
    by: String,
}

/// Delete old captures in the remote, for `diagctl gc --remote`
///
/// Prints a line of JSON for each capture: what becomes of it, and why.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// Delete captures that are older than this, milliseconds
    #[arg(long)]
    max_age_ms: Option<u64>,
    /// Delete the oldest captures until the others have at most so many bytes
    #[arg(long)]
    max_use: Option<u64>,
    /// Delete nothing
    #[arg(long)]
    dry_run: bool,
    /// The person
    #[arg(long)]
    by: String,
}

/// A capture that is to be deleted.
#[derive(Debug, Deserialize)]
struct Named {
    id: Id,
    created: String,
    host: String,
}

/// The verdict on a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    id: String,
    host: String,
    bytes: u64,
    keep: bool,
    reason: String,
}

/// A capture in the remote, by its objects.
#[derive(Clone, Debug, Default)]
struct Stored {
    keys: Vec<String>,
    bytes: u64,
    written_ms: u64,
    record_ms: u64,
    whole: bool,
    /// A manifest names it.
    listed: bool,
    /// A manifest of its day is damaged, so that nobody knows if it is pinned.
    unknown: bool,
    pinned: bool,
}

/// True for a capture that stays, and the reason.
type Fate = (bool, String);

/// Day, host and id: the directory of a capture.
type Place = (String, String, String);

/// Runs `rm`.
///
/// # Errors
///
/// If a capture cannot be deleted.
pub async fn rm(args: &RmArgs, settings: &Settings) -> Result<Exit> {
    let bucket = Bucket::open(&settings.remote)?;
    let mut exit = Exit::Ok;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Error::Runtime)?;
        let named: Named = serde_json::from_str(&line).map_err(|e| Error::Asked(e.to_string()))?;
        let base = keys::capture(&named.created, &named.host, named.id.as_str());
        let keys: Vec<String> = bucket.list_under(&base).await?.into_iter().map(|object| object.key).collect();
        let was_there = !keys.is_empty();
        // Also noted as deleted if nothing is left of it, so that it is listed no more.
        let doomed = Doomed { id: named.id.as_str(), host: &named.host, keys, was_shipped: true };
        delete(&bucket, keys::day(&named.created), vec![doomed], &args.by).await?;
        if was_there {
            output::say(&format!("deleted {} of {}", named.id, named.host));
        } else {
            exit = output::fail(&Error::NoCapture { id: named.id, host: named.host });
        }
    }
    Ok(exit)
}

/// Runs `gc`.
///
/// # Errors
///
/// If the clock of the remote is not that of this machine, the remote cannot be listed, a manifest cannot be read, or
/// something cannot be deleted.
pub async fn gc(args: &GcArgs, settings: &Settings) -> Result<Exit> {
    let bucket = Bucket::open(&settings.remote)?;
    let now_ms = probe::remote_ms(&bucket, args.dry_run).await?;
    let mut listing = captures::read(&bucket, None, None).await?;
    listing.require_whole()?;
    captures::tell_unused(&bucket);
    let listed: BTreeSet<Place> = listing.newest_first().map(place_of).collect();
    let pinned = listing.pinned().map(place_of).collect();
    let objects = bucket.list_days("captures", None, None).await?;
    let mut stored = group(objects, &pinned);
    let damaged: BTreeSet<&str> = listing.damaged_days().collect();
    listing.tell_damaged(&settings.remote);
    for (place, stored) in &mut stored {
        stored.listed = listed.contains(place);
        stored.unknown = damaged.contains(place.0.as_str());
        // What was left of the deletion of a pinned capture is not kept for ever.
        stored.pinned &= stored.whole || stored.listed;
    }
    let verdicts = judge(&stored, args, now_ms);
    for verdict in &verdicts {
        let line = serde_json::to_string(verdict).unwrap_or_default();
        output::say_raw(&line).map_err(Error::Runtime)?;
    }
    if args.dry_run {
        return Ok(Exit::Ok);
    }
    let mut days: BTreeMap<&str, Vec<Doomed<'_>>> = BTreeMap::new();
    for ((place, stored), _) in stored.iter().zip(&verdicts).filter(|(_, verdict)| !verdict.keep) {
        let keys = if stored.whole { Some(stored.keys.clone()) } else { abandoned(&bucket, place, now_ms).await? };
        let Some(keys) = keys else {
            output::note(&format!("kept {} of {}: its shipment goes on", place.2, place.1));
            continue;
        };
        // Without its record, but in a manifest: a run was killed before it could note the capture.
        let was_shipped = stored.whole || stored.listed;
        days.entry(&place.0).or_default().push(Doomed { id: &place.2, host: &place.1, keys, was_shipped });
    }
    for (day, doomed) in days {
        delete(&bucket, day, doomed, &args.by).await?;
    }
    let is_kept = |((place, stored), verdict): ((&Place, &Stored), &Verdict)| {
        (verdict.keep && stored.whole).then(|| ((place.2.clone(), place.1.clone()), stored.record_ms))
    };
    deletion::lift(&bucket, &stored.iter().zip(&verdicts).filter_map(is_kept).collect(), listing.deleted()).await?;
    let kept: BTreeSet<&str> =
        stored.keys().zip(&verdicts).filter(|(_, verdict)| verdict.keep).map(|(place, _)| place.0.as_str()).collect();
    forget_days(&bucket, &kept, now_ms).await?;
    bucket.sweep(now_ms)?;
    // Everything is found without them, only more slowly.
    if let Err(error) = merged::merge(&bucket, now_ms).await {
        output::note(&format!("the manifests were not merged, so that lists take longer: {error}"));
    }
    Ok(Exit::Ok)
}

fn place_of(entry: &Entry) -> Place {
    let base = keys::capture(&entry.created, &entry.host, entry.id.as_str());
    place(&format!("{base}/meta.json")).unwrap_or_default()
}

// The capture that an object belongs to.
fn place(key: &str) -> Option<Place> {
    let mut parts = key.split('/').skip(1).map(str::to_owned);
    let place = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_some() && parts.next().is_none() && Id::parse(&place.2).is_some()).then_some(place)
}

// The oldest first. What is not of diagctl is in none of them.
fn group(objects: Vec<Object>, pinned: &BTreeSet<Place>) -> BTreeMap<Place, Stored> {
    let mut captures: BTreeMap<Place, Stored> = BTreeMap::new();
    for object in objects {
        let Some(place) = place(&object.key) else { continue };
        let pinned = pinned.contains(&place);
        let stored = captures.entry(place).or_default();
        if object.key.ends_with("/meta.json") {
            stored.whole = true;
            stored.record_ms = object.written_ms;
        }
        stored.pinned = pinned;
        stored.bytes = stored.bytes.saturating_add(object.bytes);
        stored.written_ms = stored.written_ms.max(object.written_ms);
        stored.keys.push(object.key);
    }
    captures
}

// What becomes of a capture whatever the others take, and why. `None` is for one that may go.
fn fate(stored: &Stored, max_age_ms: Option<u64>, now_ms: u64) -> Option<Fate> {
    let age_ms = now_ms.saturating_sub(stored.written_ms);
    match () {
        () if stored.pinned => Some((true, "pinned when it was shipped".to_owned())),
        () if !stored.whole && age_ms < UNFINISHED_MS => Some((true, "without meta.json: may be under way".to_owned())),
        () if !stored.whole => Some((false, "without meta.json: its shipment was never finished".to_owned())),
        () if stored.unknown => Some((true, "a manifest of its day is damaged: may be pinned".to_owned())),
        // Its manifest comes last, and says whether it is pinned.
        () if !stored.listed && age_ms < UNFINISHED_MS => {
            Some((true, "in no manifest yet: may be under way".to_owned()))
        }
        () => max_age_ms.filter(|most| age_ms > *most).map(|most| {
            (false, format!("shipped {} ago, longer than {}", units::duration(age_ms), units::duration(most)))
        }),
    }
}

// Says of each capture, in the same order, whether it stays. Ids sort by time, and so do days.
fn judge(captures: &BTreeMap<Place, Stored>, args: &GcArgs, now_ms: u64) -> Vec<Verdict> {
    let mut order: Vec<(&Place, &Stored, Option<Fate>)> =
        captures.iter().map(|(place, stored)| (place, stored, fate(stored, args.max_age_ms, now_ms))).collect();
    order.sort_by_key(|(place, ..)| &place.2);
    let goes = |fate: &Option<Fate>| matches!(fate, Some((false, _)));
    let stays = order.iter().filter(|(.., fate)| !goes(fate));
    let mut total = stays.fold(0, |sum: u64, (_, stored, _)| sum.saturating_add(stored.bytes));
    let mut verdicts = BTreeMap::new();
    for (place, stored, fate) in order {
        let (keep, reason) = fate.unwrap_or_else(|| match args.max_use.filter(|most| total > *most) {
            Some(most) => {
                let left = units::size(total);
                total = total.saturating_sub(stored.bytes);
                (false, format!("the oldest that may go: {left} are more than {}", units::size(most)))
            }
            None => (true, String::new()),
        });
        let (id, host, bytes) = (place.2.clone(), place.1.clone(), stored.bytes);
        verdicts.insert(place, Verdict { id, host, bytes, keep, reason });
    }
    verdicts.into_values().collect()
}

// Returns the files of a shipment that was never finished, or `None` if it goes on. The listing may be older than its resumption.
async fn abandoned(bucket: &Bucket, place: &Place, now_ms: u64) -> Result<Option<Vec<String>>> {
    let objects = bucket.list_under(&format!("captures/{}/{}/{}", place.0, place.1, place.2)).await?;
    let goes_on = |object: &Object| {
        object.key.ends_with("/meta.json") || now_ms.saturating_sub(object.written_ms) < UNFINISHED_MS
    };
    let is_abandoned = !objects.iter().any(goes_on);
    Ok(is_abandoned.then(|| objects.into_iter().map(|object| object.key).collect()))
}

// Deletes the manifests of days of which nothing is left. Nodes still write those of the last days, and may ship a capture of any day.
async fn forget_days(bucket: &Bucket, kept: &BTreeSet<&str>, now_ms: u64) -> Result<()> {
    let recent = clock::utc(i64::try_from(now_ms.saturating_sub(UNFINISHED_MS)).unwrap_or(0));
    let until = Some(keys::day(&recent));
    let mut objects = bucket.list_days("manifests", None, until).await?;
    objects.extend(bucket.list_days("merged", None, until).await?);
    let may_go = |object: &&Object| !is_needed(object, now_ms);
    let days: BTreeSet<&str> = objects.iter().filter(may_go).filter_map(|object| day_of(&object.key)).collect();
    for day in days.difference(kept) {
        // The listings are old by now, and a manifest that was written meanwhile must not be lost.
        let manifests = bucket.list_under(&format!("manifests/{day}")).await?;
        let is_written = |object: &Object| !keys::is_deleted(&object.key) && is_needed(object, now_ms);
        let captures = bucket.list_under(&format!("captures/{day}")).await?;
        if manifests.iter().any(is_written) || captures.iter().any(|object| place(&object.key).is_some()) {
            continue;
        }
        let merged = bucket.list_under(&format!("merged/{day}")).await?;
        let gone = merged.into_iter().chain(manifests.into_iter().filter(|object| !is_needed(object, now_ms)));
        bucket.delete(gone.map(|object| object.key).collect()).await?;
    }
    Ok(())
}

// True if a manifest was written so lately that it stays, whatever is left of its day.
fn is_needed(object: &Object, now_ms: u64) -> bool {
    let most = if keys::is_deleted(&object.key) { DELETED_MS } else { UNFINISHED_MS };
    now_ms.saturating_sub(object.written_ms) < most
}

// The day of a manifest.
fn day_of(key: &str) -> Option<&str> {
    let mut parts = key.split('/').skip(1);
    let day = parts.next()?;
    (parts.next().is_some() && day.len() == keys::NO_DAY.len() && keys::day(day) == day).then_some(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 100 * DAY_MS;

    // A capture that was shipped so many days ago.
    fn capture(n: u64, days: u64, whole: bool, pinned: bool) -> (Place, Stored) {
        let place = ("2026-11-28".to_owned(), "web-1".to_owned(), format!("20261128T10000000{n}Z-aaaaaaaa"));
        let written_ms = NOW - days * DAY_MS;
        let listed = whole;
        let unknown = false;
        (
            place,
            Stored { keys: Vec::new(), bytes: 100, written_ms, record_ms: written_ms, whole, listed, unknown, pinned },
        )
    }

    fn kept(captures: &[(Place, Stored)], max_age_days: Option<u64>, max_use: Option<u64>) -> Vec<bool> {
        let max_age_ms = max_age_days.map(|days| days * DAY_MS);
        let args = GcArgs { max_age_ms, max_use, dry_run: true, by: String::new() };
        judge(&captures.iter().cloned().collect(), &args, NOW).iter().map(|verdict| verdict.keep).collect()
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_what_is_pinned_or_under_way_stays() {
        let captures = [
            capture(1, 40, true, true),
            capture(2, 30, true, false),
            capture(3, 20, true, false),
            capture(4, 3, false, false),
            capture(5, 1, false, false),
            capture(6, 0, true, false),
        ];
        assert_eq!(kept(&captures, Some(25), None), [true, false, true, false, true, true]);
        assert_eq!(kept(&captures, None, Some(300)), [true, false, false, false, true, true]);
        assert_eq!(kept(&captures, None, Some(1 << 40)), [true, true, true, false, true, true]);
        assert_eq!(
            kept(&captures, Some(0), None),
            [true, false, false, false, true, true],
            "less than a day is not older"
        );
    }

    #[test]
    fn the_age_that_is_the_reason_has_a_fitting_unit() {
        const MINUTE_MS: u64 = 60_000;
        let table = [
            (12_000, 10_000, "shipped 12s ago, longer than 10s"),
            (90 * MINUTE_MS, 30 * MINUTE_MS, "shipped 1h 30m ago, longer than 30m"),
            (95 * DAY_MS, 90 * DAY_MS, "shipped 95d ago, longer than 90d"),
            (500, 0, "shipped 500ms ago, longer than 0ms"),
        ];
        for (age_ms, most, expected) in table {
            let (place, stored) = capture(1, 0, true, false);
            let captures = [(place, Stored { written_ms: NOW - age_ms, ..stored })].into();
            let args = GcArgs { max_age_ms: Some(most), max_use: None, dry_run: true, by: String::new() };
            assert_eq!(judge(&captures, &args, NOW)[0].reason, expected);
        }
    }

    #[test]
    fn a_capture_in_no_manifest_may_be_under_way_and_pinned() {
        let unlisted = |n, days| {
            let (place, stored) = capture(n, days, true, false);
            (place, Stored { listed: false, ..stored })
        };
        let (place, stored) = unlisted(4, 3);
        let unknown = (place, Stored { unknown: true, ..stored });
        let captures = [unlisted(1, 3), unlisted(2, 1), capture(3, 1, true, false), unknown];
        assert_eq!(kept(&captures, None, Some(0)), [false, true, false, true]);
    }

    #[test]
    fn what_goes_anyway_takes_no_room_from_older_ones() {
        let captures = [capture(1, 1, true, false), capture(2, 30, true, false), capture(3, 3, false, false)];
        assert_eq!(kept(&captures, Some(25), Some(100)), [true, false, false]);
        assert_eq!(kept(&captures, None, Some(100)), [false, true, false]);
        let args = GcArgs { max_age_ms: None, max_use: Some(100), dry_run: true, by: String::new() };
        let verdicts = judge(&captures.into_iter().collect(), &args, NOW);
        assert_eq!(verdicts[0].reason, "the oldest that may go: 200 B are more than 100 B");
    }

    #[test]
    fn only_the_files_of_captures_are_grouped() {
        let object = |key: &str| Object { key: key.into(), bytes: 10, version: String::new(), written_ms: 1 };
        let id = "20261128T100000000Z-aaaaaaaa";
        let keys = [
            format!("captures/2026-11-28/web-1/{id}/smaps.txt.gz"),
            format!("captures/2026-11-28/web-1/{id}/meta.json"),
            format!("captures/2026-11-28/web-1/{id}/deep/file"),
            "captures/2026-11-28/web-1/other/file".into(),
            "captures/readme.txt".into(),
        ];
        let grouped = group(keys.iter().map(|key| object(key)).collect(), &BTreeSet::new());
        assert_eq!(grouped.len(), 1);
        let stored = grouped.values().next().unwrap();
        assert_eq!((stored.keys.len(), stored.bytes, stored.whole), (2, 20, true));
    }

    #[tokio::test]
    async fn a_day_of_which_nothing_is_left_keeps_what_was_written_lately() {
        let now_ms = probe::local_ms();
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().into());
        let put = async |key: &str, days: u64| {
            bucket.put(key, "x\n".into()).await.unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now_ms - days * DAY_MS);
            std::fs::File::options().append(true).open(dir.path().join(key)).unwrap().set_modified(at).unwrap();
        };
        for (day, of_manifest) in [("2020-01-01", 3), ("2020-01-02", 0), ("2020-01-03", 3), ("2020-01-04", 3)] {
            put(&keys::manifest(day, "web-1", "0"), of_manifest).await;
            put(&keys::merged(day, "0"), 3).await;
            put(&keys::deleted(day, "young"), 29).await;
            put(&keys::deleted(day, "old"), 31).await;
        }
        // Shipped since the captures were listed.
        put("captures/2020-01-03/web-1/20200103T100000000Z-aaaaaaaa/meta.json", 3).await;
        put("manifests/readme.txt", 40).await;
        forget_days(&bucket, &BTreeSet::from(["2020-01-04"]), now_ms).await.unwrap();
        let left = async |day: &str| {
            let (manifests, merged) = (format!("manifests/{day}"), format!("merged/{day}"));
            let (manifests, merged) = (bucket.list_under(&manifests).await, bucket.list_under(&merged).await);
            let mut names: Vec<String> = manifests.unwrap().into_iter().chain(merged.unwrap()).map(|o| o.key).collect();
            names.sort_unstable();
            names.iter().map(|key| key.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        let all = "web-1~0.jsonl ~deleted~old.jsonl ~deleted~young.jsonl 0.jsonl.gz";
        let table = [("01", "~deleted~young.jsonl"), ("02", all), ("03", all), ("04", all)];
        for (day, expected) in table {
            assert_eq!(left(&format!("2020-01-{day}")).await, expected, "{day}");
        }
        assert!(dir.path().join("manifests/readme.txt").exists());
    }
}
