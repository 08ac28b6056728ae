//! `encryption.json`: whether reports are encrypted in this store, and since when. A store in which they never were has no such file.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encryption::Encryption;
use crate::error::{Error, Result};
use crate::index::Listing;
pub use crate::layout::ENCRYPTION as FILE;
use crate::{Store, events, trash};
use diagctl_fs::{self as fs, Durability};
use diagctl_observe::clock;

const MAX_FILE: u64 = 64 << 10;

const SCHEMA: u32 = 1;

/// The captures that are looked at where there is no record. Some hold only reports that are left out of encryption.
const LOOKED_AT: usize = 100;

/// The state of encryption in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the format.
    pub schema: u32,
    /// True while they are.
    pub on: bool,
    /// The time of the last change, UTC, RFC 3339.
    pub since: String,
    /// The latest recipients.
    pub recipients: Vec<String>,
}

/// The content of the file.
enum Found {
    Nothing,
    Record(Record),
    /// A newer version of diagctl wrote it. It is left alone.
    Newer,
}

/// Reads the record. Where there is none that can be read, captures tell.
pub fn read(store: &Store) -> Option<Record> {
    match from_file(store) {
        Ok(Found::Record(record)) => Some(record),
        _ => of_captures(store),
    }
}

// Fails with the reason if something is there that no process of ours would have left.
fn from_file(store: &Store) -> std::result::Result<Found, String> {
    match fs::read_bounded(&store.path(FILE), MAX_FILE) {
        Ok(data) => parse(&data).map_err(|why| format!("{FILE} is damaged: {why}")),
        Err(fs::Error::Io { source, .. }) if source.kind() != ErrorKind::PermissionDenied => Ok(Found::Nothing),
        Err(why) => Err(why.to_string()),
    }
}

fn parse(data: &[u8]) -> std::result::Result<Found, String> {
    let value: Value = serde_json::from_slice(data).map_err(|why| why.to_string())?;
    if !value.is_object() {
        return Err("it is no record".into());
    }
    if value.get("schema").and_then(Value::as_u64).is_some_and(|schema| schema > u64::from(SCHEMA)) {
        return Ok(Found::Newer);
    }
    let record: Record = serde_json::from_value(value).map_err(|why| why.to_string())?;
    if record.since.is_empty() { Err("it has no time".into()) } else { Ok(Found::Record(record)) }
}

fn write(store: &Store, record: &Record) -> Result<()> {
    let data = serde_json::to_vec(record).map_err(Error::encode(FILE))?;
    Ok(fs::write_atomic(&store.path(FILE), &data, Durability::Volatile)?)
}

// It must not stop captures. What captures tell takes its place, and outlives them.
fn move_away_what_is_damaged(store: &Store) -> Result<()> {
    if from_file(store).is_err() {
        let _guard = store.lock()?;
        if let Err(why) = from_file(store) {
            trash::quarantine(store, &store.path(FILE), &why)?;
            if let Some(record) = of_captures(store) {
                write(store, &record)?;
            }
        }
    }
    Ok(())
}

/// Notes the encryption of a capture that begins, or of a changed configuration. Encryption that was turned off or on again is an event;
/// `why` says why reports are not encrypted, if they are not. Returns the reason of an event.
pub fn note(store: &Store, encryption: Option<&Encryption>, why: &str) -> Result<Option<String>> {
    move_away_what_is_damaged(store)?;
    if matches!(from_file(store), Ok(Found::Newer)) {
        return Ok(None);
    }
    if change(store, encryption)?.is_none() {
        return Ok(None);
    }
    let _guard = store.lock()?;
    // Another process may have noted the same change.
    let Some((before, now)) = change(store, encryption)? else { return Ok(None) };
    write(store, &now)?;
    let (event, reason) = match before {
        Some(Record { on: true, .. }) if !now.on => (
            "encryption_off",
            format!(
                "reports are stored in plain from now on: {why}; earlier captures are encrypted to {}",
                now.recipients.join(", ")
            ),
        ),
        Some(Record { on: false, .. }) if now.on => {
            ("encryption_on", format!("reports are encrypted again, to {}", now.recipients.join(", ")))
        }
        _ => return Ok(None),
    };
    events::record(store, &events::Event::about(event, "", &reason));
    Ok(Some(reason))
}

// Returns the record before and after, if it changes.
fn change(store: &Store, encryption: Option<&Encryption>) -> Result<Option<(Option<Record>, Record)>> {
    let before = read(store);
    let after = match (&before, encryption) {
        (None, None) => return Ok(None),
        (None, Some(encryption)) if encryption.recipients.is_empty() => return Ok(None),
        (Some(before), None) => Record { on: false, ..before.clone() },
        // A broken one names nobody, and stores nothing in plain.
        (Some(before), Some(encryption)) if encryption.recipients.is_empty() => Record { on: true, ..before.clone() },
        (before, Some(encryption)) => {
            let since = before.as_ref().map_or_else(clock::utc_now, |before| before.since.clone());
            Record { schema: SCHEMA, on: true, since, recipients: encryption.recipients.clone() }
        }
    };
    let turned = before.as_ref().is_some_and(|before| before.on != after.on);
    let after = if turned { Record { since: clock::utc_now(), ..after } } else { after };
    Ok((before.as_ref() != Some(&after)).then_some((before, after)))
}

// A store of an earlier version has no record, but perhaps encrypted captures.
fn of_captures(store: &Store) -> Option<Record> {
    let listing = Listing::newest(store, LOOKED_AT).or_else(|| Listing::all(store).ok())?;
    let entries = listing.newest_first().take(LOOKED_AT).filter_map(|number| listing.entry(number));
    let newest = entries.into_iter().find(|entry| entry.reports.iter().any(|report| report.encrypted))?;
    let recipients = crate::meta::read(&store.report_dir(&newest.id)).map(|meta| meta.recipients).unwrap_or_default();
    Some(Record { schema: SCHEMA, on: true, since: newest.created, recipients })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, StoreOptions};

    #[test]
    fn what_is_in_the_place_of_the_record_goes_to_quarantine_and_stops_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let one = Encryption { recipients: vec!["age1one".into()], ..Encryption::default() };
        type Put = fn(&std::path::Path);
        let table: [(&str, Put, bool); 8] = [
            ("a directory", |path| std::fs::create_dir_all(path.join("sub")).unwrap(), true),
            // A record takes its place.
            ("a link", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(), false),
            ("damaged", |path| std::fs::write(path, "{").unwrap(), true),
            ("a list", |path| std::fs::write(path, "[]").unwrap(), true),
            ("no field", |path| std::fs::write(path, r#"{"schema":1}"#).unwrap(), true),
            (
                "no time",
                |path| std::fs::write(path, r#"{"schema":1,"on":false,"since":"","recipients":[]}"#).unwrap(),
                true,
            ),
            ("too large", |path| std::fs::write(path, vec![b' '; 1 << 17]).unwrap(), true),
            (
                "unreadable",
                |path| {
                    let record = r#"{"schema":1,"on":false,"since":"2026-11-29T03:00:00Z","recipients":[]}"#;
                    std::fs::write(path, record).unwrap();
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
                },
                // Root can read it.
                !rustix::process::geteuid().is_root(),
            ),
        ];
        for (what, put, is_moved) in table {
            for encryption in [None, Some(&one)] {
                let dir = tempfile::tempdir().unwrap();
                let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
                put(&dir.path().join("store").join(FILE));
                note(&store, encryption, "a.toml has no [encrypt]").unwrap_or_else(|why| panic!("{what}: {why}"));
                let moved = fs::children(&store.path("quarantine")).count();
                assert_eq!(moved, usize::from(is_moved), "{what}");
                assert_eq!(read(&store).is_some_and(|record| record.on), encryption.is_some(), "{what}");
            }
        }
    }

    #[test]
    fn a_record_of_a_newer_version_is_left_alone() {
        let one = Encryption { recipients: vec!["age1one".into()], ..Encryption::default() };
        let newer = r#"{"schema":9,"state":"on"}"#;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        std::fs::write(store.path(FILE).path(), newer).unwrap();
        for encryption in [None, Some(&one)] {
            assert_eq!(note(&store, encryption, "a.toml has no [encrypt]").unwrap(), None);
            assert_eq!(read(&store), None);
        }
        assert_eq!(std::fs::read_to_string(store.path(FILE).path()).unwrap(), newer);
        assert_eq!((events::read(&store).len(), fs::children(&store.path("quarantine")).count()), (0, 0));
    }

    #[test]
    fn encryption_that_is_turned_off_or_on_again_is_one_event() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        let to = |name: &str| Encryption { recipients: vec![name.into()], ..Encryption::default() };
        let (one, two, broken) = (to("age1one"), to("age1two"), Encryption::broken("x"));
        let table = [
            (None, None, false),
            (Some(&broken), None, false),
            (Some(&one), None, true),
            (Some(&one), None, true),
            (
                None,
                Some(
                    "reports are stored in plain from now on: a.toml has no [encrypt]; earlier captures are encrypted to age1one",
                ),
                false,
            ),
            (None, None, false),
            (Some(&broken), Some("reports are encrypted again, to age1one"), true),
            (Some(&two), None, true),
            (
                None,
                Some(
                    "reports are stored in plain from now on: a.toml has no [encrypt]; earlier captures are encrypted to age1two",
                ),
                false,
            ),
        ];
        let mut told = 0;
        for (encryption, expected, on) in table {
            assert_eq!(note(&store, encryption, "a.toml has no [encrypt]").unwrap().as_deref(), expected);
            assert_eq!(read(&store).is_some_and(|record| record.on), on);
            told += usize::from(expected.is_some());
            assert_eq!(events::read(&store).len(), told);
        }
        let names: Vec<String> = events::read(&store).into_iter().map(|event| event.event).collect();
        assert_eq!(names, ["encryption_off", "encryption_on", "encryption_off"]);
    }
}
