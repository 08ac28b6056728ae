//! Captures on their way to a remote: which wait, in which order, which the remote has confirmed, and what retention had to delete
//! unshipped. The network is the shipper's business; this module only knows the store.
//!
//! ```text
//! reports/<id>/shipped    the remote has confirmed every file of the capture
//! remote/lock             held by the shipper that works on this store
//! remote/uploads/<id>     see the shipper
//! remote/manifests/       the same
//! remote/place            the same
//! remote/dropped.json     the number of captures that were deleted unshipped
//! remote/outcome.json     when shipping last succeeded and failed
//! remote/watched          the holder of the lock goes on, and ships each new capture
//! ```

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::Id;
use crate::index::{self, Entry, PIN_FILE, Present, SHIPPED_FILE};
use crate::layout::REMOTE;
use crate::{Error, Store, events, layout, meta};
use diagctl_fs::{self as fs, Durability, LockFile, Spot};
use diagctl_observe::clock;

const OUTCOME: &str = "outcome.json";
const WATCHED: &str = "watched";

/// The value of a capture, the greatest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Somebody pinned it.
    Pinned,
    /// It answers an event of the application.
    Event,
    /// Somebody asked for it.
    Requested,
    /// Any other.
    Routine,
}

/// A capture that is to be shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// Its value.
    pub worth: Worth,
    /// Its sequence number. Among equals the oldest goes first, because retention deletes it first.
    pub sequence: u64,
    /// Its id.
    pub id: Id,
}

/// The captures that the remote has not confirmed.
#[derive(Debug, Default)]
pub struct Queue {
    /// Those that are to be shipped, in order.
    pub waiting: Vec<Waiting>,
    /// Those that cannot be shipped because their record cannot be read, with the reason.
    pub damaged: Vec<(Id, Error)>,
}

/// Returns the captures that the remote has not confirmed.
///
/// # Errors
///
/// If the captures cannot be listed.
pub fn queue(store: &Store) -> Result<Queue> {
    let mut queue = Queue::default();
    for id in Present::list(store)?.ids() {
        let dir = store.report_dir(&id);
        if dir.join(SHIPPED_FILE).is_file() {
            continue;
        }
        match meta::read(&dir) {
            Ok(meta) => queue.waiting.push(Waiting { worth: worth(&dir, &meta), sequence: meta.sequence, id }),
            // The capture was deleted after the directory was read.
            Err(e) if e.is_not_found() && !dir.exists() => {}
            Err(e) => queue.damaged.push((id, e)),
        }
    }
    queue.waiting.sort_unstable();
    Ok(queue)
}

/// Returns the captures that are to be shipped, in order. Captures whose record cannot be read are not among them.
///
/// # Errors
///
/// If the captures cannot be listed.
pub fn waiting(store: &Store) -> Result<Vec<Waiting>> {
    Ok(queue(store)?.waiting)
}

fn worth(dir: &Spot, meta: &meta::Meta) -> Worth {
    match () {
        () if dir.join(PIN_FILE).exists() => Worth::Pinned,
        () if meta.trigger.name == "event" => Worth::Event,
        () if meta.request.is_some() => Worth::Requested,
        () => Worth::Routine,
    }
}

/// Records that the remote has confirmed a capture. Retention may have deleted the capture meanwhile.
///
/// # Errors
///
/// If the marker or the index cannot be written.
pub fn confirm(store: &Store, id: Id) -> Result<()> {
    let dir = store.report_dir(&id);
    let marker = dir.join(SHIPPED_FILE);
    let marked = fs::create_new(&marker).and_then(|file| fs::widen_like_parent(&file, &marker));
    match marked.and_then(|()| fs::sync_dir(&dir)) {
        Err(_) if !dir.exists() => return Ok(()),
        Err(e) if !marker.is_file() => return Err(e.into()),
        _ => {}
    }
    let entry = Entry::of(store, &meta::read(&dir)?);
    let what = match entry.reports.len() {
        1 => "1 report, confirmed by the remote".to_owned(),
        n => format!("{n} reports, confirmed by the remote"),
    };
    events::record(store, &events::Event { rule: entry.rule.clone(), ..events::Event::about("shipped", id, &what) });
    let succeeded = |last: Outcome| Outcome { shipped_at: clock::utc_now(), failing: false, ..last };
    // For people: the capture is shipped, whatever becomes of this note.
    let _ = note_outcome(store, succeeded);
    index::append_shipped(store, &entry)
}

/// Takes back that the remote has confirmed a capture, which waits again from then on.
///
/// # Errors
///
/// If the capture is gone, or the marker cannot be removed.
pub fn unconfirm(store: &Store, id: Id) -> Result<()> {
    let dir = store.report_dir(&id);
    meta::read(&dir)?;
    fs::remove_file(&dir.join(SHIPPED_FILE))?;
    Ok(fs::sync_dir(&dir)?)
}

/// The latest success and failure of shipping. Times are UTC, RFC 3339, and empty if there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The version of this file's format.
    pub schema: u32,
    /// The time at which a capture was last confirmed.
    pub shipped_at: String,
    /// The time of the last failure.
    pub failed_at: String,
    /// The reason for the last failure.
    pub failure: String,
    /// The number of failures.
    pub failures: u64,
    /// True if nothing was confirmed since the last failure.
    pub failing: bool,
}

/// Returns the latest success and failure.
pub fn outcome(store: &Store) -> Outcome {
    let data = fs::read_bounded(&store.path(REMOTE).join(OUTCOME), 16 << 10).unwrap_or_default();
    serde_json::from_slice(&data).unwrap_or_default()
}

/// Counts a failure of shipping. The first of a series, and each with another reason, is an event. A failed write is ignored.
pub fn note_failure(store: &Store, why: &str) {
    let why: String = why.chars().take(500).collect();
    let last = outcome(store);
    if !last.failing || last.failure != why {
        events::record(store, &events::Event::about("ship_failed", "", &why));
    }
    let _ = note_outcome(store, |last| Outcome {
        failed_at: clock::utc_now(),
        failure: why,
        failures: last.failures.saturating_add(1),
        failing: true,
        ..last
    });
}

fn note_outcome(store: &Store, change: impl FnOnce(Outcome) -> Outcome) -> Result<()> {
    let dir = directory(store)?;
    let data = serde_json::to_vec(&Outcome { schema: 1, ..change(outcome(store)) });
    let data = data.map_err(Error::encode("the outcome of shipping"))?;
    Ok(fs::write_atomic(&dir.join(OUTCOME), &data, Durability::Volatile)?)
}

/// Returns the lock that a shipper holds.
///
/// # Errors
///
/// If its directory cannot be created.
pub fn lock(store: &Store) -> Result<Spot> {
    Ok(directory(store)?.join("lock"))
}

/// Notes if the holder of the lock goes on, and ships each new capture.
///
/// # Errors
///
/// If the note cannot be written.
pub fn note_watch(store: &Store, watches: bool) -> Result<()> {
    let note = directory(store)?.join(WATCHED);
    if watches { Ok(fs::write_atomic(&note, b"", Durability::Volatile)?) } else { Ok(fs::remove_file(&note)?) }
}

/// Returns true if a shipper runs that ships each new capture.
pub fn is_watched(store: &Store) -> bool {
    let dir = store.path(REMOTE);
    dir.join(WATCHED).is_file() && matches!(LockFile::try_lock(&dir.join("lock")), Ok(None))
}

/// Returns the directory in which the shipper keeps its files. It may not exist.
pub fn place(store: &Store) -> Spot {
    store.path(REMOTE)
}

/// Returns the directory in which the shipper keeps its files, and creates it.
///
/// # Errors
///
/// If it cannot be created, or is not a directory of the store's owner.
pub fn directory(store: &Store) -> Result<Spot> {
    layout::own_directory(store, REMOTE)
}

/// The captures that retention deleted before the remote had them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// The version of this file's format.
    pub schema: u32,
    /// Their number.
    pub captures: u64,
    /// Their disk usage, bytes.
    pub bytes: u64,
    /// The latest of them.
    pub latest: Option<Id>,
    /// Time of its deletion, UTC, RFC 3339.
    pub at: String,
}

/// Returns what was deleted unshipped since the store exists.
pub fn dropped(store: &Store) -> Dropped {
    let data = fs::read_bounded(&store.path(REMOTE).join("dropped.json"), 4096).unwrap_or_default();
    serde_json::from_slice(&data).unwrap_or_default()
}

/// Counts a capture that was deleted unshipped. The count is for people, so a failed write is ignored.
pub(crate) fn note_dropped(store: &Store, id: Id, bytes: u64) {
    let note = || -> Result<()> {
        let dir = directory(store)?;
        let _guard = store.lock()?;
        let before = dropped(store);
        let (captures, bytes) = (before.captures.saturating_add(1), before.bytes.saturating_add(bytes));
        let now = Dropped { schema: 1, captures, bytes, latest: Some(id), at: clock::utc_now() };
        let data = serde_json::to_vec(&now).map_err(Error::encode("the count of captures deleted unshipped"))?;
        Ok(fs::write_atomic(&dir.join("dropped.json"), &data, Durability::Volatile)?)
    };
    let _ = note();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Meta, Trigger};
    use crate::{Access, StoreOptions, cleanup, pin};
    use diagctl_observe::clock::{Anchor, Reading};

    struct Scene {
        _dir: tempfile::TempDir,
        store: Store,
    }

    impl Scene {
        fn new(change: impl FnOnce(&mut StoreOptions)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut options = StoreOptions::new(dir.path().join("store"));
            change(&mut options);
            Self { store: Store::open(options, Access::Create).unwrap(), _dir: dir }
        }

        fn publish(&self, n: u64, change: impl FnOnce(&mut Meta)) -> Id {
            let id = format!("20260101T00000000{n}Z-aaaaaaaa").parse().unwrap();
            let mut meta = Meta { schema: 1, id, sequence: n, store_ms: n, ..Meta::default() };
            change(&mut meta);
            fs::create_dir(&self.store.report_dir(&id), 0o700).unwrap();
            let file = self.store.report_dir(&id).join("meta.json");
            fs::write_atomic(&file, &serde_json::to_vec(&meta).unwrap(), Durability::Volatile).unwrap();
            index::append(&self.store, &Entry::of(&self.store, &meta)).unwrap();
            id
        }

        fn waiting(&self) -> Vec<Id> {
            waiting(&self.store).unwrap().into_iter().map(|waiting| waiting.id).collect()
        }
    }

    #[test]
    fn pinned_and_event_captures_go_first_and_then_the_oldest() {
        let scene = Scene::new(|_| {});
        let routine = scene.publish(1, |_| {});
        let later = scene.publish(2, |_| {});
        let requested = scene.publish(3, |meta| meta.request = Some("r".into()));
        let event = scene.publish(4, |meta| meta.trigger = Trigger { name: "event".into(), ..Trigger::default() });
        let pinned = scene.publish(5, |_| {});
        pin::set(&scene.store, pinned, true).unwrap();
        assert_eq!(scene.waiting(), [pinned, event, requested, routine, later]);
    }

    #[test]
    fn a_capture_without_a_readable_record_does_not_wait_and_is_not_hidden() {
        let scene = Scene::new(|_| {});
        let ids: Vec<Id> = (1..=3).map(|n| scene.publish(n, |_| {})).collect();
        confirm(&scene.store, ids[0]).unwrap();
        for id in &ids[..2] {
            std::fs::write(scene.store.report_dir(id).path().join("meta.json"), "{").unwrap();
        }
        let queue = queue(&scene.store).unwrap();
        assert_eq!(scene.waiting(), ids[2..]);
        let [(id, Error::DamagedMeta { .. })] = &queue.damaged[..] else { panic!("{queue:?}") };
        assert_eq!(*id, ids[1], "what was shipped is safe");
    }

    #[test]
    fn a_confirmed_capture_is_marked_everywhere_and_waits_no_more() {
        let scene = Scene::new(|_| {});
        let (one, other) = (scene.publish(1, |_| {}), scene.publish(2, |_| {}));
        for _ in 0..2 {
            confirm(&scene.store, one).unwrap();
            assert_eq!(scene.waiting(), [other]);
            let listing = index::Listing::all(&scene.store).unwrap();
            assert_eq!([0, 1].map(|n| listing.entry(n).unwrap().shipped), [true, false]);
        }
        fs::remove(&scene.store.report_dir(&other)).unwrap();
        confirm(&scene.store, other).unwrap();
    }

    #[test]
    fn a_series_of_failures_is_one_event_and_a_success_ends_it() {
        let scene = Scene::new(|_| {});
        let id = scene.publish(1, |_| {});
        assert_eq!(outcome(&scene.store), Outcome::default());
        for why in ["gone", "gone", "denied"] {
            note_failure(&scene.store, why);
        }
        let now = outcome(&scene.store);
        assert_eq!((now.failures, now.failing, now.failure.as_str()), (3, true, "denied"));
        confirm(&scene.store, id).unwrap();
        let now = outcome(&scene.store);
        assert!(!now.failing && !now.shipped_at.is_empty() && now.failures == 3, "{now:?}");
        note_failure(&scene.store, "denied");
        let told: Vec<String> = events::read(&scene.store)
            .into_iter()
            .filter(|event| event.event == "ship_failed")
            .map(|event| event.reason)
            .collect();
        assert_eq!(told, ["gone", "denied", "denied"]);
    }

    #[test]
    fn a_store_is_watched_while_a_watcher_holds_the_lock() {
        let scene = Scene::new(|_| {});
        let held = || LockFile::try_lock(&lock(&scene.store).unwrap()).unwrap().unwrap();
        assert!(!is_watched(&scene.store));
        for (watches, expected) in [(true, true), (false, false)] {
            let _lock = held();
            note_watch(&scene.store, watches).unwrap();
            assert_eq!(is_watched(&scene.store), expected);
            note_watch(&scene.store, true).unwrap();
        }
        assert!(!is_watched(&scene.store), "its lock is free");
    }

    #[test]
    fn retention_deletes_what_the_remote_has_and_counts_what_it_has_not() {
        let scene = Scene::new(|options| {
            options.ships = true;
            options.retention.keep_last = 0;
            options.retention.keep_free = crate::units::Amount::Bytes(0);
            options.retention.max_age = std::time::Duration::from_secs(1 << 40);
            options.retention.max_captures = Some(3);
        });
        let ids: Vec<Id> = (1..=4).map(|n| scene.publish(n, |_| {})).collect();
        confirm(&scene.store, ids[2]).unwrap();
        let now = Anchor::place(None, Reading::take(String::new()));
        let collect = || cleanup::collect(&scene.store, &now, Some(ids[3])).unwrap();
        collect();
        assert!(!scene.store.report_dir(&ids[2]).exists() && scene.store.report_dir(&ids[0]).exists());
        assert_eq!(dropped(&scene.store), Dropped::default());

        scene.publish(5, |_| {});
        collect();
        assert!(!scene.store.report_dir(&ids[0]).exists());
        let dropped = dropped(&scene.store);
        assert_eq!((dropped.captures, dropped.latest), (1, Some(ids[0])));
        let told = crate::events::read(&scene.store).pop().unwrap();
        assert!(told.event == "deleted" && told.reason.ends_with("it was NOT shipped before"), "{told:?}");
    }
}
