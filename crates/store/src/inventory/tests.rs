//! The inventory agrees with the directory even if the index does not, and no capture is deleted on outdated data.

use super::*;
use crate::ReportName;
use crate::StoreOptions;
use crate::{Access, cleanup};
use diagctl_observe::clock::{Anchor, Reading};

const KIB: u64 = 1 << 10;

struct Scene {
    // Removed when dropped.
    _dir: tempfile::TempDir,
    store: Store,
}

fn id(n: u64) -> Id {
    format!("20261122T101530123Z-{n:08x}").parse().unwrap()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = StoreOptions::new(dir.path().join("store"));
        options.retention.keep_free = crate::units::Amount::Bytes(0);
        let store = Store::open(options, Access::Create).unwrap();
        Self { _dir: dir, store }
    }

    /// Publishes a capture that takes space for its directory, its record and a file.
    fn publish(&self, n: u64, kind: &str, kib: u64) -> Entry {
        // Each capture is a second younger than the one before.
        self.publish_at(n, kind, kib, now().store_ms - 1000 * (1000 - n))
    }

    fn publish_at(&self, n: u64, kind: &str, kib: u64, store_ms: u64) -> Entry {
        let dir = self.store.report_dir(&id(n));
        let report = meta::Report { stored_bytes: kib * KIB, ..meta::Report::new(ReportName::from_text(kind)) };
        let meta = meta::Meta { id: id(n), sequence: n, store_ms, reports: vec![report], ..meta::Meta::default() };
        std::fs::create_dir(dir.path()).unwrap();
        std::fs::write(dir.join("meta.json").path(), serde_json::to_vec(&meta).unwrap()).unwrap();
        std::fs::write(dir.join("data").path(), vec![0; usize::try_from(kib * KIB).unwrap()]).unwrap();
        Entry::of(&self.store, &meta)
    }

    fn indexed(&self, n: u64, kind: &str, kib: u64) {
        index::append(&self.store, &self.publish(n, kind, kib)).unwrap();
    }

    fn index(&self) -> String {
        std::fs::read_to_string(self.store.path("index.jsonl").path()).unwrap()
    }

    fn present(&self) -> Vec<u64> {
        let number = |entry: fs::Entry| u64::from_str_radix(&entry.name.to_str().unwrap()[20..], 16).unwrap();
        let mut present: Vec<u64> = fs::children(&self.store.path("reports")).map(number).collect();
        present.sort_unstable();
        present
    }

    fn pin(&self, n: u64) {
        fs::create_new(&self.store.report_dir(&id(n)).join(PIN_FILE)).unwrap();
    }

    // Makes room for `bytes` like a `put` that has reached the cap.
    fn make_room(&mut self, stock: &mut Inventory, bytes: u64) {
        self.store.options.retention.max_use = used(stock, &self.store);
        cleanup::make_room(&self.store, now().store_ms, stock, bytes).unwrap();
    }
}

// The disk usage of the whole store.
fn used(stock: &Inventory, store: &Store) -> u64 {
    stock.reports_bytes() + other_bytes(store)
}

fn now() -> Now {
    Anchor::place(None, Reading::take(String::new()))
}

#[test]
fn the_directory_is_authoritative_and_the_index_saves_reads() {
    let scene = Scene::new();
    (1..=3).for_each(|n| scene.indexed(n, "heap", 4));
    let whole = scene.index();
    let captures = 3 * 12 * KIB;
    // A later line replaces an earlier one and is trusted: the record of a capture that stays is not read.
    let doubled = Entry { disk_bytes: 24 * KIB, ..scene.publish(4, "heap", 4) };
    index::append(&scene.store, &Entry { disk_bytes: 1, ..doubled.clone() }).unwrap();
    index::append(&scene.store, &doubled).unwrap();
    let without_end = "x".repeat(5 << 20);
    let lines = scene.index();
    for (index, expected) in [
        (lines.clone(), captures + 24 * KIB),
        (format!("{lines}{{\"check\":\"00000000\",\"id\":\"C\"}}\n{{\"id\":\"D"), captures + 24 * KIB),
        (format!("{without_end}\n{lines}"), captures + 24 * KIB),
        (whole, captures + 12 * KIB),
        (String::new(), captures + 12 * KIB),
    ] {
        std::fs::write(scene.store.path("index.jsonl").path(), index).unwrap();
        let stock = Inventory::load(&scene.store, false).unwrap();
        assert_eq!((stock.captures.count(), stock.captures.bytes(), stock.strange_bytes), (4, expected, 0));
    }
    // Foreign entries and damaged captures take room; deleted captures do not.
    std::fs::write(scene.store.path("reports").join("notes").path(), "x").unwrap();
    std::fs::write(scene.store.report_dir(&id(4)).join("meta.json").path(), "{").unwrap();
    fs::remove(&scene.store.report_dir(&id(1))).unwrap();
    let stock = Inventory::load(&scene.store, false).unwrap();
    assert_eq!((stock.captures.count(), stock.captures.bytes(), stock.strange_bytes), (2, 24 * KIB, 16 * KIB));
}

#[test]
fn write_back_completes_the_index_and_drops_deleted_captures() {
    let scene = Scene::new();
    (1..=4).for_each(|n| scene.indexed(n, "heap", 4));
    let before = scene.index();
    scene.publish(5, "heap", 4);
    scene.pin(5);
    [1, 2].iter().for_each(|n| fs::remove(&scene.store.report_dir(&id(*n))).unwrap());
    Inventory::load(&scene.store, false).unwrap();
    assert_eq!(scene.index(), before, "untouched");
    Inventory::load(&scene.store, true).unwrap();
    let after = scene.index();
    let kept: Vec<&str> = before.lines().skip(2).collect();
    assert_eq!(after.lines().take(2).collect::<Vec<_>>(), kept);
    assert!(after.lines().count() == 3 && after.ends_with("\"pinned\":true}\n"), "{after}");
    // An index above the maximum size is replaced, not appended to.
    std::fs::File::options()
        .write(true)
        .open(scene.store.path("index.jsonl").path())
        .and_then(|file| file.set_len(1 << 30))
        .unwrap();
    Inventory::load(&scene.store, true).unwrap();
    assert_eq!(scene.index().lines().count(), 3);
}

#[test]
fn room_is_made_step_by_step_and_keeps_the_last_of_each_kind() {
    let mut scene = Scene::new();
    (1..=6).for_each(|n| scene.indexed(n, "heap", 4));
    let mut stock = Inventory::load(&scene.store, false).unwrap();
    scene.make_room(&mut stock, 1);
    assert_eq!(scene.present(), [2, 3, 4, 5, 6]);
    scene.make_room(&mut stock, 24 * KIB);
    assert_eq!(scene.present(), [4, 5, 6]);
    // Somebody deletes the two newest, so the capture before them becomes the last good one.
    [5, 6].iter().for_each(|n| fs::remove(&scene.store.report_dir(&id(*n))).unwrap());
    scene.make_room(&mut stock, 1);
    assert_eq!(scene.present(), [4]);
    assert_eq!(stock.captures.count(), 1);
    // A capture that appears meanwhile counts, too.
    scene.publish(7, "heap", 4);
    scene.make_room(&mut stock, 1);
    assert_eq!(scene.present(), [7]);
}

#[test]
fn a_pin_that_the_index_missed_is_respected() {
    let mut scene = Scene::new();
    (1..=3).for_each(|n| scene.indexed(n, "heap", 4));
    let mut stock = Inventory::load(&scene.store, false).unwrap();
    scene.pin(1);
    scene.make_room(&mut stock, 1);
    assert_eq!(scene.present(), [1, 3], "pinned before the plan");

    let mut stock = Inventory::load(&scene.store, false).unwrap();
    scene.indexed(4, "heap", 4);
    stock.refresh(&scene.store).unwrap();
    scene.store.options.retention.max_use = used(&stock, &scene.store) - 1;
    let mut plan = stock.plan(&scene.store, now().store_ms, 0, Pressure::Admission, None).unwrap();
    assert_eq!(plan.victims().count(), 1);
    scene.pin(3);
    assert_eq!(stock.apply(&scene.store, &mut plan).unwrap(), 0);
    assert_eq!(scene.present(), [1, 3, 4], "pinned after the plan");
    let verdicts = stock.verdicts(&plan);
    let said: Vec<_> = verdicts.iter().map(|verdict| (verdict.keep, verdict.reasons[0].as_str())).collect();
    assert_eq!(said, [(true, "pinned"), (true, "pinned"), (true, "last heap")]);
}

// `unpin` removes the marker first.
#[test]
fn an_unpin_that_was_killed_before_its_line_takes_effect_with_the_next_check() {
    let mut scene = Scene::new();
    (1..=3).for_each(|n| scene.indexed(n, "heap", 4));
    scene.pin(1);
    let entry = index::Entry::of(&scene.store, &meta::read(&scene.store.report_dir(&id(1))).unwrap());
    index::append_pinned(&scene.store, &entry).unwrap();
    Inventory::check(&scene.store, true).unwrap();
    fs::remove_file(&scene.store.report_dir(&id(1)).join(PIN_FILE)).unwrap();
    let pinned = |stock: &Inventory| (0..stock.captures.count()).filter(|i| stock.captures.is_pinned(*i)).count();
    assert_eq!(pinned(&Inventory::load(&scene.store, false).unwrap()), 1, "the index does not know yet");
    Inventory::check(&scene.store, true).unwrap();
    let mut stock = Inventory::load(&scene.store, false).unwrap();
    assert_eq!(pinned(&stock), 0);
    scene.make_room(&mut stock, 1);
    assert_eq!(scene.present(), [2, 3]);
}

fn said(stock: &Inventory, plan: &Plan) -> Vec<(Id, Vec<String>)> {
    plan.deletions(&stock.captures).map(|(_, verdict)| (verdict.id, verdict.reasons)).collect()
}

// Two hundred captures: the third has the given kind, and the fifth is pinned.
fn two_hundred(third: &str) -> Scene {
    let scene = Scene::new();
    (1..=200).for_each(|n| scene.indexed(n, if n == 3 { third } else { "heap" }, 0));
    scene.pin(5);
    Inventory::check(&scene.store, true).unwrap();
    scene
}

// For every reason of deletion and every kind of protection of the oldest.
#[test]
fn a_plan_from_the_ends_of_the_catalog_equals_the_full_plan() {
    let now = now();
    for (third, left) in [("heap", [5, 112, 113]), ("rare", [3, 5, 113])] {
        let mut scene = two_hundred(third);
        for (max_captures, max_age_s, is_short) in [
            (Some(199), 86_400, true),
            (Some(190), 86_400, true),
            (Some(137), 86_400, false),
            (Some(10), 86_400, false),
            (None, 990, true),
            (None, 900, false),
            (Some(195), 990, true),
            (Some(0), 1, false),
        ] {
            scene.store.options.retention.max_captures = max_captures;
            scene.store.options.retention.max_age = std::time::Duration::from_secs(max_age_s);
            let mut all = Inventory::load(&scene.store, false).unwrap();
            assert_eq!(all.captures.count(), 200);
            let plan = all.plan(&scene.store, now.store_ms, 0, Pressure::Routine, None).unwrap();
            let expected = said(&all, &plan);
            let planned = Inventory::planned(&scene.store, &now, 0, Pressure::Routine, None).unwrap();
            let (stock, plan) = planned.expect("there is something to give up");
            assert_eq!(said(&stock, &plan), expected, "{max_captures:?} {max_age_s}");
            assert_eq!(stock.captures.count() < 200, is_short && third == "heap", "{max_captures:?} {max_age_s}");
            assert_eq!(stock.reports_bytes(), all.reports_bytes());
        }
        scene.store.options.retention.max_captures = Some(200);
        scene.store.options.retention.max_age = std::time::Duration::from_secs(86_400);
        assert!(Inventory::planned(&scene.store, &now, 0, Pressure::Routine, None).unwrap().is_none());
        // Applies many plans in a row, as a store does over years.
        scene.store.options.retention.max_captures = Some(150);
        for n in 201..=260 {
            scene.indexed(n, "heap", 0);
            cleanup::collect(&scene.store, &now, Some(id(n))).unwrap();
            assert_eq!(scene.present().len(), 150);
        }
        assert_eq!(scene.present()[..3], left);
    }
}

// A store that lost its time line goes on with the wall clock, which may be behind.
#[test]
fn a_capture_with_an_earlier_time_than_those_before_it_is_not_overlooked() {
    let now = now();
    let mut scene = two_hundred("heap");
    let early = scene.publish_at(201, "heap", 0, now.store_ms - 5_000_000);
    index::append(&scene.store, &early).unwrap();
    (202..=210).for_each(|n| scene.indexed(n, "heap", 0));
    Inventory::check(&scene.store, true).unwrap();
    scene.store.options.retention.max_age = std::time::Duration::from_secs(4_000);
    cleanup::collect(&scene.store, &now, None).unwrap();
    assert!(!scene.present().contains(&201), "by its age");
    assert_eq!(scene.present().len(), 209);

    // Together with captures that are old in both respects, and by count.
    let early = scene.publish_at(211, "heap", 0, now.store_ms - 998_500);
    index::append(&scene.store, &early).unwrap();
    scene.indexed(212, "heap", 0);
    Inventory::check(&scene.store, true).unwrap();
    scene.store.options.retention.max_age = std::time::Duration::from_secs(998);
    cleanup::collect(&scene.store, &now, None).unwrap();
    assert_eq!(scene.present().first(), Some(&2), "1 is too old");
    Inventory::check(&scene.store, true).unwrap();
    cleanup::collect(&scene.store, &now, None).unwrap();
    assert!(!scene.present().contains(&211), "with the next full reading at the latest");
    scene.store.options.retention.max_captures = Some(208);
    cleanup::collect(&scene.store, &now, None).unwrap();
    assert_eq!((scene.present().len(), scene.present()[0]), (208, 3), "in the order of their sequence");
}

#[test]
fn a_capture_of_a_rare_kind_is_left_out_and_kept() {
    let scene = two_hundred("rare");
    let catalog = Catalog::current(&scene.store).unwrap();
    let numbers = |stock: &Inventory| -> Vec<String> {
        (0..3)
            .map(|i| stock.captures.id(i).as_str().trim_start_matches("20261122T101530123Z-0000000").to_owned())
            .collect()
    };
    for (most, expected, first, listed) in [(20, ["1", "2", "4"], 63, 83), (4096, ["1", "2", "3"], 64, 200)] {
        let (stock, number) = Inventory::oldest_and_newest(&catalog, 1, most).unwrap();
        assert_eq!((numbers(&stock), number.listed), (expected.map(str::to_owned).to_vec(), first));
        assert_eq!((stock.captures.count(), stock.reports_bytes()), (listed, catalog.totals().reports_bytes()));
    }
}
