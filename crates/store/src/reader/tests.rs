//! Resolving ids. Reading reports: the output is exactly the recorded content, or an error.

use super::*;
use crate::Access;
use crate::ReportName;
use crate::StoreOptions;

const A: Id = Id::of_record(*b"20260101T000000000Z-aaaaaaaa");
const B: Id = Id::of_record(*b"20260101T000000001Z-bbbbbbbb");
const C: Id = Id::of_record(*b"20250101T000000000Z-cccccccc");
const DAMAGED: Id = Id::of_record(*b"20270101T000000000Z-dddddddd");

// C was taken last, on a machine whose clock was a year behind. The index has A, twice, and none of the others.
fn four(store: &Store) {
    let report = |name: &str| match name.strip_suffix('!') {
        Some(name) => meta::Report::failed(ReportName::from_text(name), "no room"),
        None => meta::Report::new(ReportName::from_text(name)),
    };
    let captures: [(Id, &[&str]); 3] =
        [(A, &["heap_dump", "gc_stat"]), (B, &["heap_dump!", "puma!"]), (C, &["gc_stat"])];
    for (sequence, (id, reports)) in (1..).zip(captures) {
        let reports = reports.iter().map(|name| report(name)).collect();
        let meta = meta::Meta { id, sequence, reports, ..meta::Meta::default() };
        std::fs::create_dir(store.report_dir(&id).path()).unwrap();
        let record = store.report_dir(&id).join("meta.json");
        std::fs::write(record.path(), serde_json::to_vec(&meta).unwrap()).unwrap();
        if id == A {
            for _ in 0..2 {
                index::append(store, &index::Entry::of(store, &meta)).unwrap();
            }
        }
    }
    std::fs::create_dir(store.report_dir(&DAMAGED).path()).unwrap();
    std::fs::write(store.report_dir(&DAMAGED).join("meta.json").path(), "torn").unwrap();
}

fn resolved(store: &Store, text: &str) -> Result<Target> {
    resolve(store, text)
}

#[test]
fn every_capture_is_counted_once_and_the_last_granted_is_the_newest() {
    let (_dir, store) = store();
    four(&store);
    let summary = index::summary(&store).unwrap();
    assert_eq!((summary.captures, summary.latest.unwrap().id), (3, C));
    assert_eq!(summary.damaged.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [DAMAGED]);
}

#[test]
fn ids_prefixes_and_latest_are_found() {
    let (_dir, store) = store();
    four(&store);
    let target = |id, report: Option<&str>| Target { id, report: report.map(str::to_owned) };
    let table = [
        (A.as_str(), target(A, None)),
        ("20260101T000000001", target(B, None)),
        ("2025", target(C, None)),
        ("2027", target(DAMAGED, None)),
        ("2025:gc_stat", target(C, Some("gc_stat"))),
        ("latest", target(C, None)),
        ("latest:gc_stat", target(C, Some("gc_stat"))),
        // B lists the report too, but with an error only.
        ("latest:heap_dump", target(A, Some("heap_dump"))),
    ];
    for (text, expected) in table {
        assert_eq!(resolved(&store, text).unwrap(), expected, "{text}");
    }
}

#[test]
fn unmatched_and_ambiguous_prefixes_are_errors() {
    let (_dir, store) = store();
    assert!(matches!(resolved(&store, "latest"), Err(Error::NoCaptures)));
    four(&store);
    let table = [
        ("2024", "no capture matches \"2024\""),
        ("", "no capture matches"),
        ("2026", &format!("\"2026\" matches 2 captures: {B}, {A}")),
        ("latest:smaps", "no capture has the report smaps"),
        ("latest:puma", &format!("it failed last in {B}: no room")),
        ("\u{1b}[2J", "no capture matches \"\\u{1b}[2J\""),
    ];
    for (text, expected) in table {
        let error = resolved(&store, text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?} should say {expected:?} but says {error}");
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::new(dir.path().join("store"));
    let store = Store::open(options, Access::Create).unwrap();
    (dir, store)
}

// Stores a capture with one report. `change` edits the record after the checksum was taken.
fn stored(store: &Store, encoding: &str, data: &[u8], raw_bytes: u64, change: impl Fn(&mut meta::Report)) -> Stored {
    let dir = store.report_dir(&A);
    std::fs::create_dir_all(dir.path()).unwrap();
    // Creates a new file each time, so that files opened earlier keep their content.
    let _ = std::fs::remove_file(dir.join("r.json.gz").path());
    std::fs::write(dir.join("r.json.gz").path(), data).unwrap();
    let sha256 = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut report = meta::Report {
        file: Some("r.json.gz".into()),
        encoding: encoding.into(),
        raw_bytes,
        stored_bytes: data.len() as u64,
        sha256: Some(sha256),
        ..meta::Report::new(ReportName::from_text("r"))
    };
    change(&mut report);
    let meta = meta::Meta { id: A, reports: vec![report], ..meta::Meta::default() };
    Stored::open(store, &meta, "r").unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn fetched(mut stored: Stored, form: Representation) -> std::result::Result<Vec<u8>, String> {
    let mut out = Vec::new();
    stored.verify().map_err(|e| e.to_string())?;
    match stored.copy(form, &mut out, &mut |_| {}) {
        Ok(_) => Ok(out),
        Err(Interrupted::Source(e)) => Err(e.to_string()),
        Err(Interrupted::Output(e)) => Err(e.to_string()),
    }
}

#[test]
fn content_and_stored_form_are_read_back_exactly() {
    let (_dir, store) = store();
    let content = b"{\"a\":1}\n".repeat(50_000);
    let zipped = gzip(&content);
    let as_is = |_: &mut meta::Report| {};
    let len = content.len() as u64;
    assert_eq!(fetched(stored(&store, "gzip", &zipped, len, as_is), Representation::Content).unwrap(), content);
    assert_eq!(fetched(stored(&store, "gzip", &zipped, len, as_is), Representation::Stored).unwrap(), zipped);
    let zstandard = zstd::encode_all(&content[..], 3).unwrap();
    assert_eq!(fetched(stored(&store, "zstd", &zstandard, len, as_is), Representation::Content).unwrap(), content);
    assert_eq!(fetched(stored(&store, "", &content, len, as_is), Representation::Content).unwrap(), content);
    assert_eq!(stored(&store, "gzip", &zipped, len, as_is).file_name(Representation::Content), "r.json");
    assert_eq!(stored(&store, "gzip", &zipped, len, as_is).file_name(Representation::Stored), "r.json.gz");
}

#[test]
fn damage_bombs_and_truncation_are_reported_with_both_figures() {
    let (_dir, store) = store();
    let content = vec![b'x'; 100_000];
    let zipped = gzip(&content);
    let half = &zipped[..zipped.len() / 2];
    let as_is: fn(&mut meta::Report) = |_| {};
    let table: Vec<(Stored, &str)> = vec![
        (stored(&store, "gzip", &zipped, 99_999, as_is), "more than the 99999 bytes that were recorded"),
        (stored(&store, "gzip", &zipped, 100_001, as_is), "it decompresses to 100000 bytes instead of 100001"),
        (stored(&store, "gzip", half, 100_000, as_is), "of 100000 bytes"),
        (stored(&store, "zstd", b"no zstd at all", 100_000, as_is), "cannot be decompressed"),
        (stored(&store, "gzip", &zipped, 100_000, |r| r.sha256 = Some("00".into())), "instead of 00"),
        (stored(&store, "gzip", &zipped, 100_000, |r| r.sha256 = None), "no sha256 was recorded"),
        (stored(&store, "gzip", &zipped, 100_000, |r| r.stored_bytes += 1), " bytes instead of "),
        (stored(&store, "gzip", &zipped, 100_000, |r| r.stored_bytes -= 1), "more bytes"),
        (stored(&store, "lzma", &zipped, 100_000, as_is), "compressed with \"lzma\""),
    ];
    for (stored, expected) in table {
        let message = fetched(stored, Representation::Content).unwrap_err();
        assert!(message.contains(expected), "should say {expected:?} but says {message}");
        assert!(message.contains(A.as_str()) && message.contains("report r"), "{message}");
    }
}

#[test]
fn a_report_that_failed_or_is_a_symlink_is_not_opened() {
    let (_dir, store) = store();
    let meta = |file: Option<&str>| meta::Meta {
        id: A,
        reports: vec![meta::Report {
            file: file.map(str::to_owned),
            ..meta::Report::failed(ReportName::from_text("r"), "no jemalloc here")
        }],
        ..meta::Meta::default()
    };
    let failure = Stored::open(&store, &meta(None), "r").unwrap_err();
    assert!(matches!(&failure, Error::ReportFailed { error, .. } if error == "no jemalloc here"), "{failure}");
    assert!(matches!(Stored::open(&store, &meta(None), "other"), Err(Error::NoReport { .. })));
    std::fs::create_dir_all(store.report_dir(&A).path()).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", store.report_dir(&A).join("r.txt").path()).unwrap();
    assert!(Stored::open(&store, &meta(Some("r.txt")), "r").is_err());
}
