//! `events.jsonl`: the last verdicts, deletions and failures, for people. Bounded; losing it loses nothing.

use serde::{Deserialize, Serialize};

use crate::Store;
use diagctl_fs::{self as fs, Durability};
use diagctl_observe::clock;

/// When the file is larger, its older half goes.
const MAX_FILE: i64 = 64 << 10;

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// UTC, RFC 3339.
    pub at: String,
    /// `verdict`, `dry_run`, `published`, `aborted`, `failed`, `cleaned`, `deleted`, `quarantined`, `request_failed`, `event_dropped`, `paused`, `resumed`.
    pub event: String,
    /// The capture or request that it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The verdict.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// The rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The process that polled.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: u32,
    /// Why.
    pub reason: String,
    /// The figures that were seen.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub observed: std::collections::BTreeMap<String, serde_json::Number>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Event {
    /// An event about a capture.
    pub fn about(event: &str, id: &str, reason: &str) -> Self {
        Self { event: event.into(), id: id.into(), reason: reason.into(), ..Self::default() }
    }

    /// Something was moved to the quarantine.
    pub fn quarantined(name: &str, reason: &str) -> Self {
        Self::about("quarantined", name, reason)
    }

    /// A request was given up.
    pub fn request_failed(id: &str, reason: &str) -> Self {
        Self::about("request_failed", id, reason)
    }
}

/// Appends an event. It is told to people, never relied on: that it cannot be written stops nothing.
pub fn record(store: &Store, event: &Event) {
    let path = store.path("events.jsonl");
    let event = Event { at: clock::utc_now(), ..event.clone() };
    let Ok(line) = serde_json::to_string(&event) else { return };
    let _ = fs::append_line(&path, line.as_bytes(), Durability::Volatile);
    if path.stat().is_ok_and(|stat| stat.st_size > MAX_FILE) {
        let kept: Vec<Event> = read(store);
        let half = &kept[kept.len() / 2..];
        let lines: Vec<String> = half.iter().filter_map(|event| serde_json::to_string(event).ok()).collect();
        let _ = fs::write_atomic(&path, (lines.join("\n") + "\n").as_bytes(), Durability::Volatile);
    }
}

/// What is on record, oldest first; lines that cannot be understood are passed over.
pub fn read(store: &Store) -> Vec<Event> {
    let Ok(data) = fs::read_bounded(&store.path("events.jsonl"), MAX_FILE.unsigned_abs() * 4) else {
        return Vec::new();
    };
    parse(&data).collect()
}

/// The lines that can be understood.
pub fn parse(data: &[u8]) -> impl Iterator<Item = Event> + '_ {
    data.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_str(&String::from_utf8_lossy(line)).ok())
}
