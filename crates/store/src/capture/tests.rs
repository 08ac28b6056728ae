use std::io::Write;

use super::*;
use crate::ReportName;
use crate::{Access, StoreOptions};

const ID: Id = Id::of_record(*b"20261122T101530123Z-7f3a9c2e");

struct Scene {
    // Removed when dropped.
    _dir: tempfile::TempDir,
    store: Store,
}

// A store with one capture that has `file` as its report `r`. `change` edits the record.
fn scene(encoding: &str, file: &[u8], raw_bytes: u64, change: fn(&mut Report)) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
    let mut report = Report {
        file: Some("r.bin".into()),
        encoding: encoding.into(),
        raw_bytes,
        stored_bytes: file.len() as u64,
        sha256: Some(writer::hex(&Sha256::digest(file))),
        ..Report::new(ReportName::from_text("r"))
    };
    change(&mut report);
    let failed = Report::failed(ReportName::from_text("failed"), "no jemalloc here");
    let meta = Meta { id: ID, reports: vec![report, failed], ..Meta::default() };
    let capture = store.report_dir(&ID);
    std::fs::create_dir(capture.path()).unwrap();
    std::fs::write(capture.join("r.bin").path(), file).unwrap();
    std::fs::write(capture.join("meta.json").path(), serde_json::to_vec(&meta).unwrap()).unwrap();
    Scene { _dir: dir, store }
}

fn read(scene: &Scene) -> std::result::Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let capture = scene.store.capture(&ID).map_err(|e| e.to_string())?;
    let mut reader = capture.reader("r").map_err(|e| e.to_string())?;
    reader.read_to_end(&mut content).map_err(|e| e.to_string())?;
    Ok(content)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_content_of_every_encoding_is_read_to_its_end() {
    let content = b"{\"a\":1}\n".repeat(50_000);
    let length = content.len() as u64;
    // Several gzip members, like a file that was appended to.
    let members = [gzip(&content[..1000]), gzip(&content[1000..])].concat();
    for (encoding, file) in [
        ("", content.clone()),
        ("identity", content.clone()),
        ("gzip", gzip(&content)),
        ("gzip", members),
        ("zstd", zstd::encode_all(&content[..], 3).unwrap()),
    ] {
        assert_eq!(read(&scene(encoding, &file, length, |_| {})).unwrap(), content, "{encoding}");
    }
    assert_eq!(read(&scene("gzip", &gzip(b""), 0, |_| {})).unwrap(), b"");
}

#[test]
fn content_that_differs_from_its_record_never_ends_with_an_ordinary_end_of_file() {
    let content = vec![b'x'; 100_000];
    let zipped = gzip(&content);
    let half = &zipped[..zipped.len() / 2];
    let as_is: fn(&mut Report) = |_| {};
    let table: [(Scene, &str); 10] = [
        (scene("gzip", &zipped, 99_999, as_is), "more than the 99999 bytes that were recorded"),
        (scene("gzip", &zipped, 100_001, as_is), "it has 100000 bytes of content, 100001 were recorded"),
        (scene("", &content, 100_001, as_is), "it has 100000 bytes of content, 100001 were recorded"),
        (scene("gzip", half, 100_000, as_is), "of 100000 bytes"),
        (scene("zstd", b"no zstd at all", 100_000, as_is), "cannot be decompressed"),
        (scene("gzip", &zipped, 100_000, |r| r.sha256 = Some("00".into())), "00 was recorded"),
        (scene("gzip", &zipped, 100_000, |r| r.sha256 = None), "no sha256 was recorded"),
        (scene("gzip", &zipped, 100_000, |r| r.stored_bytes += 1), "were recorded"),
        (scene("gzip", &zipped, 100_000, |r| r.stored_bytes -= 1), "were recorded"),
        (scene("lzma", &zipped, 100_000, as_is), "compressed with \"lzma\""),
    ];
    for (scene, expected) in table {
        let message = read(&scene).unwrap_err();
        assert!(message.contains(expected), "should say {expected:?} but says {message}");
        assert!(message.contains(ID.as_str()) && message.contains("report r"), "{message}");
    }
}

#[test]
fn every_flipped_bit_is_detected_by_the_checksum() {
    let zipped = gzip(&b"some content, ".repeat(10));
    for i in 0..zipped.len() {
        let scene = scene("gzip", &zipped, 140, |_| {});
        let mut file = zipped.clone();
        file[i] ^= 1 << (i % 8);
        std::fs::write(scene.store.report_dir(&ID).join("r.bin").path(), &file).unwrap();
        let message = read(&scene).unwrap_err();
        assert!(message.contains("the file has sha256"), "byte {i}: {message}");
    }
}

#[test]
fn missing_captures_and_reports_are_named() {
    let scene = scene("", b"x", 1, |_| {});
    let other = Id::parse("20261122T101530123Z-00000000").unwrap();
    assert!(matches!(scene.store.capture(&other), Err(Error::NoCapture { prefix }) if prefix == other.to_string()));
    let capture = scene.store.capture(&ID).unwrap();
    assert!(matches!(capture.reader("other"), Err(Error::NoReport { has, .. }) if has == ["r", "failed"]));
    assert!(matches!(capture.reader("failed"), Err(Error::ReportFailed { error, .. }) if error == "no jemalloc here"));
    std::fs::write(scene.store.report_dir(&ID).join("meta.json").path(), "{").unwrap();
    assert!(matches!(scene.store.capture(&ID), Err(Error::DamagedMeta { .. })));
}

// Reads the report of a scene with identities.
fn read_with(scene: &Scene, identities: Option<crate::encryption::Identities>) -> std::result::Result<Vec<u8>, String> {
    let identities = identities.map(Arc::new);
    let options = StoreOptions { identities, ..scene.store.options().clone() };
    let store = Store::open(options, Access::Read).unwrap();
    let mut content = Vec::new();
    let mut reader = store.capture(&ID).unwrap().reader("r").map_err(|e| e.to_string())?;
    reader.read_to_end(&mut content).map_err(|e| e.to_string())?;
    Ok(content)
}

#[test]
fn an_encrypted_report_is_read_with_an_identity_and_every_limit_holds_after_decryption() {
    use crate::encryption::testing::{encrypted, pair};
    let ((encryption, own), (_, stranger)) = (pair(), pair());
    let content = b"{\"a\":1}\n".repeat(50_000);
    let length = content.len() as u64;
    let age = |report: &mut Report| report.encryption = Some("age".into());
    let file = encrypted(&encryption, &gzip(&content));
    let whole = scene("gzip", &file, length, age);
    assert_eq!(read_with(&whole, Some(own.clone())), Ok(content.clone()));
    let why = read_with(&whole, None).unwrap_err();
    assert_eq!(why, format!("report r of capture {ID} is encrypted"));
    let why = read_with(&whole, Some(stranger)).unwrap_err();
    assert!(why.starts_with("no identity in key matches: report r of capture"), "{why}");
    let later = scene("gzip", &file, length, |report| report.encryption = Some("age2".into()));
    assert!(read_with(&later, Some(own.clone())).unwrap_err().contains("unknown encryption \"age2\""));

    // The record agrees with each file, as in a remote that somebody else may write to.
    let bomb = encrypted(&encryption, &gzip(&vec![0; 8 << 20]));
    let lying = scene("gzip", &bomb, 100, age);
    assert!(read_with(&lying, Some(own.clone())).unwrap_err().contains("more than the 100 bytes"));
    let cut = scene("gzip", &file[..file.len() - 1], length, age);
    assert!(read_with(&cut, Some(own.clone())).unwrap_err().contains("the encrypted file is cut off or was changed"));
    let plain = scene("gzip", &gzip(&content), length, age);
    assert!(read_with(&plain, Some(own.clone())).unwrap_err().contains("it is not a file that age encrypted"));

    let flipped = scene("gzip", &file, length, age);
    for at in [3, 40, 120, 200, file.len() - 1] {
        let mut file = file.clone();
        file[at] ^= 1;
        std::fs::write(flipped.store.report_dir(&ID).join("r.bin").path(), &file).unwrap();
        let why = read_with(&flipped, Some(own.clone())).unwrap_err();
        assert!(why.contains("the file has sha256"), "byte {at}: {why}");
    }
}
