//! `events.jsonl`: the latest verdicts, deletions and failures, for people. The file is bounded, and nothing depends on it.

use serde::{Deserialize, Serialize};

mod counts;

pub use counts::{Counts, Key, counts};

use crate::Store;
use diagctl_fs::{self as fs, Durability};
use diagctl_observe::clock;

/// The size at which the older half of the file is dropped, bytes.
const MAX_FILE: i64 = 64 << 10;

/// One line of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Time of the event, UTC, RFC 3339.
    pub at: String,
    /// The type: `verdict`, `dry_run`, `published`, `shipped`, `aborted`, `failed`, `cleaned`, `deleted`, `quarantined`, `request_failed`,
    /// `event_dropped`, `hook`, `hook_failed`, `ship_failed`, `closed`, `paused`, `resumed`,
    /// `encryption_off` or `encryption_on`.
    pub event: String,
    /// The id of the capture or request.
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
    /// The pid namespace in which the pid is valid.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid_ns: u64,
    /// The start of that process, in clock ticks since boot.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_ticks: u64,
    /// The reason.
    pub reason: String,
    /// The cause of a deletion, for programs: `age`, `count`, `use`, `space`, `person` or `quarantine`. Of a hook: `command` or `webhook`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// The observed figures.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub observed: std::collections::BTreeMap<String, serde_json::Number>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Event {
    /// Creates an event about a capture.
    pub fn about(event: &str, id: impl AsRef<str>, reason: &str) -> Self {
        Self { event: event.into(), id: id.as_ref().to_owned(), reason: reason.into(), ..Self::default() }
    }

    /// Creates the event for something that was moved to the quarantine.
    pub fn quarantined(name: &str, reason: &str) -> Self {
        Self::about("quarantined", name, reason)
    }

    /// Creates the event for a request that was given up.
    pub fn request_failed(id: &str, reason: &str) -> Self {
        Self::about("request_failed", id, reason)
    }
}

/// Appends an event, without secrets that a command or a failure has told. Events are informational, so a failed write is ignored.
pub fn record(store: &Store, event: &Event) {
    let path = store.path("events.jsonl");
    let reason = fs::without_secrets(&event.reason).into_owned();
    let event = Event { at: clock::utc_now(), reason, ..event.clone() };
    let Ok(line) = serde_json::to_string(&event) else { return };
    let _ = fs::append_line(&path, line.as_bytes(), Durability::Volatile);
    if path.stat().is_ok_and(|stat| stat.st_size > MAX_FILE) {
        let kept: Vec<Event> = read(store);
        let (dropped, half) = kept.split_at(kept.len() / 2);
        // Before they are gone. A crash in between counts them twice, which a rate hides better than a loss.
        let _ = counts::add(store, dropped);
        let lines: Vec<String> = half.iter().filter_map(|event| serde_json::to_string(event).ok()).collect();
        let _ = fs::write_atomic(&path, (lines.join("\n") + "\n").as_bytes(), Durability::Volatile);
    }
}

/// Reads all events, oldest first. Lines that cannot be parsed are skipped.
pub fn read(store: &Store) -> Vec<Event> {
    let Ok(data) = fs::read_bounded(&store.path("events.jsonl"), MAX_FILE.unsigned_abs() * 4) else {
        return Vec::new();
    };
    parse(&data).collect()
}

/// Parses events. Lines that cannot be parsed are skipped.
pub fn parse(data: &[u8]) -> impl Iterator<Item = Event> + '_ {
    data.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_str(&String::from_utf8_lossy(line)).ok())
}
