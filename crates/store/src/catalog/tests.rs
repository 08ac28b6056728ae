//! The catalog says what the directory holds, or counts as invalid.

use super::*;
use crate::ReportName;
use crate::StoreOptions;
use crate::error::Result;
use crate::index::{self, Entry, Listing};
use crate::inventory::Inventory;
use crate::trash;
use crate::{Access, meta};

type Step<'a> = &'a dyn Fn(&Scene);

struct Scene {
    // Removed when dropped.
    _dir: tempfile::TempDir,
    store: Store,
}

fn id(n: u64) -> Id {
    format!("20261122T101530123Z-{n:08x}").parse().unwrap()
}

fn meta(n: u64) -> meta::Meta {
    let report = |name: &str| meta::Report { stored_bytes: n, ..meta::Report::new(ReportName::from_text(name)) };
    let reports =
        vec![report("gc_stat"), report("heap_dump"), meta::Report::failed(ReportName::from_text("threads"), "no")];
    meta::Meta { id: id(n), sequence: n, store_ms: 1000 + n, reports, ..meta::Meta::default() }
}

impl Scene {
    /// A store with the given number of captures, and a catalog of them.
    fn new(captures: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path().join("store"));
        let scene = Self { store: Store::open(options, Access::Create).unwrap(), _dir: dir };
        (1..=captures).for_each(|n| scene.copy_in(n));
        Inventory::check(&scene.store, true).unwrap();
        scene
    }

    /// Copies a capture into the directory, as a person would.
    fn copy_in(&self, n: u64) {
        let dir = self.store.report_dir(&id(n));
        std::fs::create_dir(dir.path()).unwrap();
        std::fs::write(dir.join("meta.json").path(), serde_json::to_vec(&meta(n)).unwrap()).unwrap();
    }

    /// Publishes a capture the way `finalize` does.
    fn publish(&self, n: u64) {
        self.publish_by(n, || Ok(()));
        index::append(&self.store, &Entry::of(&self.store, &meta(n))).unwrap();
    }

    fn publish_by(&self, n: u64, meanwhile: impl FnOnce() -> Result<()>) {
        publish(&self.store, &NewRecord::of(&meta(n), 8192), || {
            meanwhile()?;
            self.copy_in(n);
            Ok(())
        })
        .unwrap();
    }

    fn current(&self) -> Catalog {
        Catalog::current(&self.store).expect("a catalog that is believed")
    }

    fn listed(&self) -> Vec<u64> {
        let mut listed = Vec::new();
        let number = |id: Id| u64::from_str_radix(&id.as_str()[20..], 16).unwrap();
        assert!(self.current().each(|_, record| listed.push(number(record.id))));
        let mut backwards = Vec::new();
        let back = |record: Record<'_>| {
            backwards.push(number(record.id));
            true
        };
        assert!(self.current().newest_first(back));
        backwards.reverse();
        assert_eq!(listed, backwards);
        listed
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.store.path(CATALOG).path()).unwrap()
    }

    fn put_back(&self, bytes: &[u8]) {
        std::fs::write(self.store.path(CATALOG).path(), bytes).unwrap();
    }

    /// Asserts that the totals equal a count of the whole store.
    fn assert_true(&self) {
        let totals = self.current().totals();
        let stock = Inventory::check(&self.store, true).unwrap();
        assert_eq!(totals.reports_bytes(), stock.reports_bytes());
        assert_eq!(self.current().totals(), Totals { oldest_ms: self.current().totals().oldest_ms, ..totals });
    }
}

#[test]
fn records_round_trip_and_every_bit_flip_is_detected() {
    for kinds in [vec![], vec![("a".to_owned(), 1)], vec![("gc_stat".to_owned(), 7), ("x".repeat(64), u64::MAX)]] {
        let new = NewRecord { kinds: kinds.clone(), pinned: true, ..NewRecord::of(&meta(3), 8192) };
        let bytes = new.encode();
        assert_eq!(length_at(&bytes), Some(bytes.len()));
        assert_eq!(length_at(&bytes[bytes.len() - TAIL..]), Some(bytes.len()));
        let (record, is_there) = decode(&bytes).unwrap();
        assert_eq!((record.id, record.sequence, record.store_ms, record.disk_bytes), (id(3), 3, 1003, 8192));
        assert!(is_there && record.pinned && !record.damaged);
        let read: Vec<(String, u64)> = record.kinds().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        assert_eq!(read, kinds);
        for bit in 4 * 8..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_none(), "bit {bit}");
        }
    }
}

#[test]
fn diagctls_own_changes_keep_the_catalog_valid() {
    let scene = Scene::new(3);
    scene.publish(4);
    scene.publish(5);
    assert_eq!(scene.listed(), [1, 2, 3, 4, 5]);
    assert_eq!(scene.current().totals().oldest_ms, 1001);
    trash::discard_capture(&scene.store, id(2), None).unwrap();
    assert_eq!(scene.listed(), [1, 3, 4, 5]);
    index::append_pinned(&scene.store, &Entry { pinned: true, ..Entry::of(&scene.store, &meta(1)) }).unwrap();
    let mut pinned = Vec::new();
    assert!(scene.current().each(|_, record| pinned.push(record.pinned)));
    assert_eq!(pinned, [true, false, false, false]);
    scene.assert_true();
    index::append_pinned(&scene.store, &Entry { pinned: false, ..Entry::of(&scene.store, &meta(1)) }).unwrap();
    assert_eq!(scene.current().totals(), Totals { captures: 4, bytes: 4 * 8192, oldest_ms: 1001, ..Totals::default() });
    (1..=5).filter(|n| *n != 2).for_each(|n| trash::discard_capture(&scene.store, id(n), None).unwrap());
    assert_eq!(scene.listed(), [0; 0]);
    scene.publish(6);
    assert_eq!(scene.current().totals(), Totals { captures: 1, bytes: 8192, oldest_ms: 1006, ..Totals::default() });
}

#[test]
fn foreign_changes_are_noticed_and_learned() {
    let removed = |scene: &Scene| fs::remove(&scene.store.report_dir(&id(2))).unwrap();
    let index = |scene: &Scene| scene.store.path("index.jsonl");
    let changes: [(&str, Step<'_>, &[u64]); 8] = [
        ("a capture is copied in", &|scene| scene.copy_in(9), &[1, 2, 3, 9]),
        ("one is removed", &removed, &[1, 3]),
        (
            "a foreign file",
            &|scene| std::fs::write(scene.store.path("reports").join("x").path(), "x").unwrap(),
            &[1, 2, 3],
        ),
        ("the index is gone", &|scene| std::fs::remove_file(index(scene).path()).unwrap(), &[1, 2, 3]),
        ("the index is torn", &|scene| std::fs::write(index(scene).path(), "{").unwrap(), &[1, 2, 3]),
        ("the catalog is gone", &|scene| fs::remove(&scene.store.path(CATALOG)).unwrap(), &[1, 2, 3]),
        ("the catalog is another's", &|scene| scene.put_back(b"a later format"), &[1, 2, 3]),
        (
            "an earlier version publishes",
            &|scene| {
                scene.copy_in(4);
                let line = serde_json::to_vec(&Entry::of(&scene.store, &meta(4))).unwrap();
                fs::append_line(&index(scene), &line, diagctl_fs::Durability::Volatile).unwrap();
            },
            &[1, 2, 3, 4],
        ),
    ];
    for (what, change, expected) in changes {
        let scene = Scene::new(3);
        change(&scene);
        assert!(Catalog::current(&scene.store).is_none(), "{what}");
        Inventory::check(&scene.store, true).unwrap();
        assert_eq!(scene.listed(), expected, "{what}");
        scene.assert_true();
    }
}

// The two moments at which our change and a foreign change can collide.
#[test]
fn a_change_does_not_validate_an_outdated_catalog() {
    let scene = Scene::new(2);
    scene.copy_in(8);
    scene.publish(9);
    assert!(Catalog::current(&scene.store).is_none());
    Inventory::check(&scene.store, true).unwrap();
    assert_eq!(scene.listed(), [1, 2, 8, 9]);
}

// A capture copied from another store has a number that this store has not reached.
#[test]
fn a_pin_during_a_check_makes_the_new_catalog_invalid() {
    let scene = Scene::new(3);
    let stamps = (Stamp::of_reports(&scene.store), Stamp::of_index(&scene.store));
    index::append_pinned(&scene.store, &Entry { pinned: true, ..Entry::of(&scene.store, &meta(1)) }).unwrap();
    write(&scene.store, (1..=3).map(|n| NewRecord::of(&meta(n), 8192)), 0, stamps, 0).unwrap();
    assert!(Catalog::current(&scene.store).is_none());
}

#[test]
fn the_newest_capture_has_the_highest_number_at_any_position() {
    let scene = Scene::new(2);
    scene.copy_in(50);
    Inventory::check(&scene.store, true).unwrap();
    (3..6).for_each(|n| scene.publish(n));
    let mut newest_first = Vec::new();
    let some = |record: Record<'_>| {
        newest_first.push(record.sequence);
        newest_first.len() < 5
    };
    assert!(scene.current().newest_first(some));
    assert_eq!(newest_first, [50, 5, 4, 3, 2]);
    fs::remove(&scene.store.path(CATALOG)).unwrap();
    Inventory::check(&scene.store, true).unwrap();
    assert_eq!(scene.listed(), [1, 2, 3, 4, 5, 50], "in order, when it is written anew");
}

#[test]
fn a_kill_at_any_step_leaves_the_catalog_correct_or_invalid() {
    let steps: [(&str, Step<'_>); 3] = [
        ("publish", &|scene| scene.publish_by(4, || Ok(()))),
        ("remove", &|scene| trash::discard_capture(&scene.store, id(2), None).unwrap()),
        ("pin", &|scene| {
            index::append_pinned(&scene.store, &Entry { pinned: true, ..Entry::of(&scene.store, &meta(1)) }).unwrap();
        }),
    ];
    for (what, step) in steps {
        // Every state between the first and the last write: nothing, the records, and the header too.
        for written in 0..3 {
            let scene = Scene::new(3);
            let before = scene.bytes();
            step(&scene);
            let after = scene.bytes();
            scene.put_back(&match written {
                0 => before,
                1 => [&before[..HEADER], &after[HEADER..]].concat(),
                _ => after,
            });
            assert_eq!(Catalog::current(&scene.store).is_some(), written == 2, "{what}");
            Inventory::check(&scene.store, true).unwrap();
            scene.assert_true();
        }
    }
}

#[test]
fn a_damaged_catalog_hides_no_capture() {
    let scene = Scene::new(40);
    let whole = scene.bytes();
    for at in (0..whole.len()).step_by(7) {
        for damaged in [whole[..at].to_vec(), {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            flipped
        }] {
            scene.put_back(&damaged);
            let stock = Inventory::load(&scene.store, false).unwrap();
            assert_eq!(stock.reports_bytes(), 40 * 8192, "byte {at}");
            if let Some(catalog) = Catalog::current(&scene.store) {
                let mut newest = None;
                let read = catalog.newest_first(|record| newest.replace(record.id).is_some());
                assert!(!read || newest == Some(id(40)), "byte {at}");
            }
        }
    }
}

#[test]
fn unreadable_captures_are_counted_separately_and_can_be_deleted() {
    let scene = Scene::new(3);
    std::fs::write(scene.store.report_dir(&id(2)).join("meta.json").path(), "{").unwrap();
    fs::remove(&scene.store.path("index.jsonl")).unwrap();
    Inventory::check(&scene.store, true).unwrap();
    let totals = Totals { captures: 2, bytes: 2 * 8192, damaged: 1, strange_bytes: 8192, oldest_ms: 1001 };
    assert_eq!(scene.current().totals(), totals);
    trash::discard_capture(&scene.store, id(2), None).unwrap();
    assert_eq!(scene.current().totals(), Totals { damaged: 0, strange_bytes: 0, ..totals });
}

#[test]
fn a_capture_damaged_since_is_not_among_the_newest() {
    let scene = Scene::new(3);
    std::fs::write(scene.store.report_dir(&id(3)).join("meta.json").path(), "x").unwrap();
    let listing = Listing::newest(&scene.store, 1).unwrap();
    let listed: Vec<Id> = listing.newest_first().map(|number| listing.entry(number).unwrap().id).collect();
    assert_eq!((listed, listing.total), (vec![id(2)], 2));
    assert_eq!(listing.damaged.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(3)]);
}

#[test]
fn records_longer_than_a_chunk_are_read() {
    let scene = Scene::new(1);
    let kinds: Vec<(String, u64)> = (0..20_000).map(|n| (format!("report_{n}"), n)).collect();
    for n in 2..5 {
        let new = NewRecord { kinds: kinds.clone(), ..NewRecord::of(&meta(n), 8192) };
        assert!(new.encode().len() > CHUNK);
        publish(&scene.store, &new, || {
            scene.copy_in(n);
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(scene.listed(), [1, 2, 3, 4]);
}

#[test]
fn concurrent_writers_lose_no_record() {
    let scene = Scene::new(50);
    std::thread::scope(|scope| {
        scope.spawn(|| (1..=50).for_each(|n| trash::discard_capture(&scene.store, id(n), None).unwrap()));
        scope.spawn(|| (51..=100).for_each(|n| scene.publish(n)));
    });
    assert_eq!(scene.listed(), (51..=100).collect::<Vec<_>>());
    scene.assert_true();
}
