//! A capture stays under the cap, and a writer below the cap does not open the index.

use super::room::BOOKKEEPING;
use super::*;
use crate::Access;
use crate::Store;
use crate::StoreOptions;
use crate::id::Id;
use crate::index::{self, Entry};
use crate::inventory::{self, Inventory};
use crate::layout::INDEX;
use crate::staging::Grant;
use crate::trash;

const CAP: u64 = 1 << 20;

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
        options.retention.max_use = CAP;
        options.retention.keep_free = crate::units::Amount::Bytes(0);
        let store = Store::open(options, Access::Create).unwrap();
        Self { _dir: dir, store }
    }

    fn publish(&self, n: u64, kib: usize) {
        let dir = self.store.report_dir(&id(n));
        std::fs::create_dir(dir.path()).unwrap();
        let report = meta::Report { stored_bytes: 1, ..meta::Report::new(ReportName::from_text("notes")) };
        let meta = meta::Meta { id: id(n), sequence: n, reports: vec![report], ..meta::Meta::default() };
        std::fs::write(dir.join("meta.json").path(), serde_json::to_vec(&meta).unwrap()).unwrap();
        std::fs::write(dir.join("data").path(), vec![0; kib << 10]).unwrap();
        index::append(&self.store, &Entry::of(&self.store, &meta)).unwrap();
    }

    /// Grants a capture. `says` adds the disk usage, which older versions did not record.
    fn grant(&self, says: bool) -> Grant {
        let reports_bytes = inventory::reports_bytes(&self.store).unwrap();
        fs::create_dir(&self.store.staging(&id(99)), 0o700).unwrap();
        let mut grant: Grant = serde_json::from_value(serde_json::json!({
            "meta": { "id": id(99) }, "planned": ["notes"], "generation": 99, "granted_boot_ms": 0,
        }))
        .unwrap();
        assert_eq!(grant.reports_bytes, None);
        grant.reports_bytes = says.then_some(reports_bytes);
        grant
    }

    fn put(&self, room: &mut Room<'_>, bytes: usize) -> Result<meta::Report> {
        self.put_as(room, "notes", bytes)
    }

    fn put_as(&self, room: &mut Room<'_>, name: &str, bytes: usize) -> Result<meta::Report> {
        // Random data, which does not compress.
        let mut seed = 1_u64;
        let data: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        })
        .take(bytes)
        .collect();
        store_report(room, &self.store.staging(&id(99)), &ReportName::from_text(name), &mut data.as_slice())
    }

    fn used(&self) -> u64 {
        inventory::reports_bytes(&self.store).unwrap() + inventory::other_bytes(&self.store)
    }
}

#[test]
fn a_writer_takes_its_room_from_the_grant_without_the_index() {
    let scene = Scene::new();
    scene.publish(1, 100);
    let grant = scene.grant(true);
    let left = Room::of(&scene.store, &grant).unwrap().left;
    assert_eq!(left, CAP - scene.used() - BOOKKEEPING - fs::occupied_tree(&scene.store.path(INDEX)));
    // The index is rebuilt, and the writer must not read it.
    fs::remove(&scene.store.path(INDEX)).unwrap();
    Inventory::check(&scene.store, true).unwrap();
    let mut room = Room::of(&scene.store, &grant).unwrap();
    scene.put(&mut room, 200 << 10).unwrap();
    assert!(room.inventory.is_none());
    // The next writer counts the data of the first one.
    let next = Room::of(&scene.store, &grant).unwrap();
    assert!(next.left <= left - (200 << 10), "{} {left}", next.left);
}

#[test]
fn a_grant_without_disk_usage_leaves_as_much_room() {
    let scene = Scene::new();
    scene.publish(1, 100);
    let grant = scene.grant(false);
    let measured = Room::of(&scene.store, &grant).unwrap().left;
    let told = Grant { reports_bytes: Some(inventory::reports_bytes(&scene.store).unwrap()), ..grant };
    assert_eq!(Room::of(&scene.store, &told).unwrap().left, measured);
}

#[test]
fn a_writer_at_the_cap_makes_room_and_stays_under_it() {
    for says in [true, false] {
        let scene = Scene::new();
        (1..=6).for_each(|n| scene.publish(n, 100));
        let grant = scene.grant(says);
        let mut room = Room::of(&scene.store, &grant).unwrap();
        scene.put(&mut room, 500 << 10).unwrap();
        assert!(scene.used() <= CAP);
        assert!(!scene.store.report_dir(&id(1)).exists() && scene.store.report_dir(&id(6)).exists());
        fs::remove(&scene.store.staging(&id(99)).join("notes.txt.gz")).unwrap();
        let failure = scene.put(&mut room, 2 << 20).unwrap_err();
        assert!(failure.to_string().contains("max_use"), "{failure}");
        assert!(scene.used() <= CAP);
    }
}

// The size of a stream is known only at its end; that of the next block is.
#[test]
fn a_block_that_fits_only_without_protected_captures_costs_none_its_place() {
    let scene = Scene::new();
    (1..=6).for_each(|n| scene.publish(n, 100));
    let grant = scene.grant(true);
    let mut room = Room::of(&scene.store, &grant).unwrap();
    let unprotected: u64 = (1..=6).map(|n| fs::occupied_tree(&scene.store.report_dir(&id(n)))).sum();
    let failure = room.take(room.left + unprotected).unwrap_err();
    assert!(matches!(failure, crate::Error::AtCap { .. }), "{failure}");
    assert!((1..=6).all(|n| scene.store.report_dir(&id(n)).exists()));
}

#[test]
fn room_of_captures_deleted_meanwhile_is_used() {
    let scene = Scene::new();
    (1..=2).for_each(|n| scene.publish(n, 400));
    let grant = scene.grant(true);
    trash::discard_capture(&scene.store, id(1), None).unwrap();
    let mut room = Room::of(&scene.store, &grant).unwrap();
    scene.put(&mut room, 400 << 10).unwrap();
    assert!(scene.store.report_dir(&id(2)).exists(), "nothing had to go");
}

#[test]
fn writers_of_one_capture_share_its_room() {
    let scene = Scene::new();
    let grant = scene.grant(true);
    let rooms = [(); 3].map(|()| Room::of(&scene.store, &grant).unwrap());
    let stored = rooms.into_iter().zip(["notes", "threads", "smaps"]);
    let stored = stored.map(|(mut room, name)| scene.put_as(&mut room, name, 600 << 10).is_ok());
    assert_eq!(stored.collect::<Vec<_>>(), [true, false, false]);
    assert!(scene.used() <= CAP);
}

#[test]
fn a_report_is_encrypted_before_it_reaches_the_file_and_the_cap_counts_what_is_stored() {
    use crate::encryption::testing::pair;
    let (scene, (encryption, identities)) = (Scene::new(), pair());
    let mut grant = scene.grant(true);
    grant.encryption = Some(Box::new(crate::encryption::Encryption { except: vec!["open".into()], ..encryption }));
    let mut room = Room::of(&scene.store, &grant).unwrap();
    let left = room.left;
    let report = scene.put(&mut room, 300 << 10).unwrap();
    assert_eq!((report.file.as_deref(), report.encryption.as_deref()), (Some("notes.txt.gz.age"), Some("age")));
    let path = scene.store.staging(&id(99)).join("notes.txt.gz.age");
    let stored = std::fs::read(path.path()).unwrap();
    assert_eq!(report.stored_bytes, stored.len() as u64);
    assert!(stored.len() > 300 << 10 && left - room.left >= stored.len() as u64);
    assert_eq!(report.sha256, Some(hash_file(&path).unwrap().0));
    let mut content = Vec::new();
    let zipped = crate::encryption::decrypt(&stored[..], &identities).unwrap();
    flate2::read::GzDecoder::new(zipped).read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, report.raw_bytes);
    let open = scene.put_as(&mut room, "open", 1000).unwrap();
    assert_eq!((open.file.as_deref(), open.encryption), (Some("open.txt.gz"), None));
    // The cap holds for what is written, not for what is read.
    assert!(matches!(scene.put_as(&mut room, "large", 2 << 20), Err(Error::AtCap { .. })));
    assert!(scene.used() <= CAP);
}

#[test]
fn a_report_that_cannot_be_encrypted_is_an_entry_and_no_file() {
    let scene = Scene::new();
    let mut grant = scene.grant(true);
    grant.encryption = Some(Box::new(crate::encryption::Encryption::broken("[encrypt] is not valid")));
    let mut room = Room::of(&scene.store, &grant).unwrap();
    let why = scene.put(&mut room, 1000).unwrap_err().to_string();
    assert_eq!(why, "report notes is not stored, because it cannot be encrypted: [encrypt] is not valid");
    let staging = scene.store.staging(&id(99));
    let noted = crate::staging::read_sidecar(&staging, &ReportName::from_text("notes")).unwrap().unwrap();
    assert_eq!((noted.file, noted.error), (None, Some(why)));
    let left: Vec<_> = std::fs::read_dir(staging.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".notes.report.json"]);
}

#[test]
fn whoever_writes_a_heap_summary_only_counts_are_stored() {
    let dump =
        "{\"address\":\"0x7fc4927c4120\", \"type\":\"STRING\", \"bytesize\":6, \"value\":\"S3KRET\", \"memsize\":40}\n";
    let table = [
        (dump, None),
        ("S3KRET\n", Some("is no heap dump")),
        ("{\"schema\":1,\"x\":\"S3KRET\"}", Some("is no heap dump")),
        ("", Some("is empty")),
    ];
    for (data, expected) in table {
        for by_command in [false, true] {
            let scene = Scene::new();
            let grant = scene.grant(true);
            let mut room = Room::of(&scene.store, &grant).unwrap();
            let (staging, name) = (scene.store.staging(&id(99)), ReportName::from_text(HEAP_SUMMARY));
            let form = scene.store.options().file_type(&name);
            let stored = match by_command {
                true => store_as(&mut room, &staging, &name, &form, &mut data.as_bytes(), &|| None),
                false => store_report(&mut room, &staging, &name, &mut data.as_bytes()),
            };
            if let Some(expected) = expected {
                let error = staging::read_sidecar(&staging, &name).unwrap().unwrap().error.unwrap();
                assert!(error.contains(expected) && !error.contains("S3KRET"), "{data}: {error}");
                assert!(stored.is_err());
            } else {
                let file = std::fs::File::open(staging.join(stored.unwrap().file.unwrap()).path()).unwrap();
                let mut text = String::new();
                flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
                assert!(text.contains("\"count\":1") && !text.contains("S3KRET"), "{text}");
            }
            let is_stored = staging.join("heap_summary.json.gz").exists();
            assert_eq!(is_stored, expected.is_none(), "{data}");
        }
    }
}
