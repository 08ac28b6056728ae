//! Keeps polls fast when `requests/` has very many files. A poll reads no file while the directory is unchanged, and only lists
//! the names when it has changed.
//!
//! A poll considers the oldest requests, which are next in turn, and the newest, so that a new request does not wait behind
//! thousands that no process serves. `requests.json` keeps these requests together with the state of the directory. If the file
//! is lost, a poll reads a few hundred requests again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Request, ids, read};
use crate::Store;
use crate::catalog::Stamp;
use crate::error::Result;
use crate::layout::CROWD;
use diagctl_fs as fs;
use diagctl_fs::checksum;
use diagctl_observe::clock::Reading;

/// Number of files above which this module is used.
pub const FEW: usize = 64;

/// Number of the oldest requests that are considered, and of the newest.
const HALF: usize = FEW / 2;

/// Maximum number of files that a poll reads in search of the oldest requests.
const MOST_READ: usize = 256;

/// Minimum age of the directory's last change, milliseconds. Before that, another change may leave the same timestamp.
const SETTLED_MS: u64 = 1000;

/// The contents of `requests.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Crowd {
    /// The state of the directory. The default stamp means that there is more to read.
    directory: Stamp,
    /// The id after which the search for the oldest requests continues.
    until: String,
    /// A checksum of the files up to that id that are no requests.
    #[serde(default)]
    ignored: u32,
    waiting: Vec<Request>,
}

/// Returns the oldest and the newest requests.
pub fn pending(store: &Store) -> Result<Vec<Request>> {
    let directory = Stamp::of(&store.path("requests"));
    let mut known = load(store);
    if known.directory == directory {
        return Ok(known.waiting);
    }
    let ids = ids(store, usize::MAX)?.unwrap_or_default();
    if known.ignored != ignored(&ids, &known.until, &known.waiting) {
        // The clock was set back, so that a new request has an older id. The search begins again.
        known.until.clear();
    }
    let (passed, rest) = ids.split_at(ids.partition_point(|id| *id <= known.until));
    let mut oldest = BTreeMap::new();
    // A request that was tried again has changed, so the file is read again.
    let still_there = known.waiting.iter().map(|request| &request.id).filter(|id| passed.binary_search(id).is_ok());
    oldest.extend(still_there.filter_map(|id| Some((id, read(store, id)?))));
    let mut until = known.until.as_str();
    let mut unread = rest.iter();
    for _ in 0..MOST_READ {
        if oldest.len() >= HALF {
            break;
        }
        let Some(id) = unread.next() else { break };
        until = id;
        oldest.extend(read(store, id).map(|request| (id, request)));
    }
    let is_done = oldest.len() >= HALF || unread.len() == 0;
    let newest = unread.rev().take(HALF).filter_map(|id| Some((id, read(store, id)?)));
    let mut waiting = oldest;
    waiting.extend(newest.collect::<Vec<_>>());
    let waiting: Vec<Request> = waiting.into_values().collect();
    let now_ms = u64::try_from(Reading::take(String::new()).wall_ms).unwrap_or(0);
    let is_settled = now_ms.saturating_sub(directory.modified_ms()) > SETTLED_MS;
    let directory = if is_done && is_settled { directory } else { Stamp::default() };
    let ignored = ignored(&ids, until, &waiting);
    save(store, &Crowd { directory, until: until.to_owned(), ignored, waiting: waiting.clone() });
    Ok(waiting)
}

// Sums up the ids that the search has passed and that are no requests. Ids and requests are sorted.
fn ignored(ids: &[String], until: &str, waiting: &[Request]) -> u32 {
    let passed = ids.iter().take_while(|id| id.as_str() <= until);
    let no_request = passed.filter(|id| waiting.binary_search_by(|request| request.id.cmp(id)).is_err());
    let names: Vec<&str> = no_request.map(String::as_str).collect();
    if names.is_empty() { 0 } else { checksum::crc(names.join("\n").as_bytes()) }
}

fn load(store: &Store) -> Crowd {
    let data = fs::read_bounded(&store.path(CROWD), 4 << 20).unwrap_or_default();
    serde_json::from_slice(&data).ok().filter(|_| checksum::is_whole(&data)).unwrap_or_default()
}

// The file is a cache. A poll that cannot write it is slower, but still correct.
fn save(store: &Store, crowd: &Crowd) {
    if let Ok(data) = serde_json::to_vec(crowd) {
        let _ = fs::overwrite(&store.path(CROWD), &checksum::seal(&data));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{for_poll, remove, write};
    use super::*;
    use crate::Access;
    use crate::StoreOptions;

    struct Scene {
        // Removed when dropped.
        _dir: tempfile::TempDir,
        store: Store,
    }

    fn id(n: usize) -> String {
        format!("20261122T101530123Z-{n:08x}")
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = StoreOptions::new(dir.path().join("store"));
            Self { store: Store::open(options, Access::Create).unwrap(), _dir: dir }
        }

        fn ask(&self, n: usize) {
            write(&self.store, &Request { id: id(n), reason: "first".into(), ..Request::default() }).unwrap();
        }

        fn path(&self, n: usize) -> std::path::PathBuf {
            self.store.path("requests").join(format!("{}.json", id(n))).path().to_owned()
        }

        /// Sets the time of the last change back.
        fn settle(&self, seconds: u64) {
            let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_790_000_000 + seconds);
            let dir = std::fs::File::open(self.store.path("requests").path()).unwrap();
            dir.set_modified(then).unwrap();
        }

        fn seen(&self) -> Vec<usize> {
            let number = |request: Request| usize::from_str_radix(&request.id[20..], 16).unwrap();
            for_poll(&self.store).unwrap().into_iter().map(number).collect()
        }
    }

    fn both(oldest: std::ops::Range<usize>, newest: std::ops::Range<usize>) -> Vec<usize> {
        oldest.chain(newest).collect()
    }

    #[test]
    fn few_requests_are_all_considered_without_a_cache() {
        let scene = Scene::new();
        (0..FEW).for_each(|n| scene.ask(n));
        assert_eq!(scene.seen(), (0..FEW).collect::<Vec<_>>());
        assert!(!scene.store.path(CROWD).exists());
        scene.ask(FEW);
        assert_eq!(scene.seen().len(), FEW);
        assert!(scene.store.path(CROWD).exists());
    }

    #[test]
    fn the_oldest_and_the_newest_of_many_are_considered() {
        let scene = Scene::new();
        (0..500).for_each(|n| scene.ask(n));
        assert_eq!(scene.seen(), both(0..HALF, 500 - HALF..500));
        scene.ask(500);
        assert_eq!(scene.seen(), both(0..HALF, 501 - HALF..501), "one made just now");
        (0..10).for_each(|n| remove(&scene.store, &id(n)).unwrap());
        assert_eq!(scene.seen(), both(10..10 + HALF, 501 - HALF..501), "the next ones, when others are served");
        (10..460).for_each(|n| remove(&scene.store, &id(n)).unwrap());
        assert_eq!(scene.seen(), (460..501).collect::<Vec<_>>(), "no crowd any more");
    }

    #[test]
    fn no_request_is_read_while_the_directory_is_unchanged() {
        let scene = Scene::new();
        (0..200).for_each(|n| scene.ask(n));
        scene.settle(0);
        let seen = scene.seen();
        std::fs::write(scene.path(0), "no request any more").unwrap();
        assert_eq!(scene.seen(), seen);
        scene.settle(1);
        assert_eq!(scene.seen()[0], 1);
        // A damaged file is ignored.
        std::fs::write(scene.store.path(CROWD).path(), "{\"check\":\"00000000\",\"until\":\"3\"}").unwrap();
        assert_eq!(scene.seen().len(), FEW);
    }

    #[test]
    fn a_retried_request_is_read_again() {
        let scene = Scene::new();
        (0..200).for_each(|n| scene.ask(n));
        scene.settle(0);
        scene.seen();
        for n in [0, 199] {
            write(&scene.store, &Request { id: id(n), attempts: 1, ..Request::default() }).unwrap();
        }
        let seen = for_poll(&scene.store).unwrap();
        assert_eq!((seen[0].attempts, seen[FEW - 1].attempts, seen[1].attempts), (1, 1, 0));
    }

    #[test]
    fn a_request_from_after_the_clock_was_set_back_is_read() {
        let scene = Scene::new();
        for n in 100..110 {
            std::fs::write(scene.path(n), "{").unwrap();
        }
        (200..400).for_each(|n| scene.ask(n));
        scene.settle(0);
        scene.seen();
        scene.ask(150);
        scene.settle(1);
        assert_eq!(
            scene.seen(),
            both(0..0, 150..151).into_iter().chain(both(200..199 + HALF, 400 - HALF..400)).collect::<Vec<_>>()
        );
        // Nothing is read again afterwards.
        scene.settle(2);
        scene.seen();
        std::fs::write(scene.path(200), "no request any more").unwrap();
        assert_eq!(scene.seen()[..2], [150, 200]);
    }

    #[test]
    fn invalid_files_are_skipped_a_few_hundred_per_poll() {
        let scene = Scene::new();
        (0..1000).for_each(|n| std::fs::write(scene.path(n), "{").unwrap());
        (1000..1100).for_each(|n| scene.ask(n));
        scene.settle(0);
        assert_eq!(scene.seen(), (1100 - HALF..1100).collect::<Vec<_>>());
        let polls = (0..10).find(|_| scene.seen().len() == FEW);
        assert_eq!(polls, Some(3), "the fifth poll reads the last of 1032 files");
        assert_eq!(scene.seen(), both(1000..1000 + HALF, 1100 - HALF..1100));
    }
}
