//! A store of format version 1 as diagctl left it: four captures, and samples of two growing processes. It is kept for ever: later
//! versions must read it.

use std::fs::{self, File};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::environment::{Environment, set_mode};

/// A routine capture, 20 days old, with a report that failed.
pub const ROUTINE: &str = "20261101T030000000Z-1111aaaa";
/// A heap dump, pinned, 2 days old.
pub const HEAP: &str = "20261119T101530123Z-2222bbbb";
/// The capture of a request, with a damaged heap dump; 1 day old.
pub const REQUESTED: &str = "20261120T221501007Z-3333cccc";
/// The newest, of `diagctl run`, 5 hours old.
pub const RUN: &str = "20261121T040000000Z-3333dddd";

/// A capture that is being taken, in the tests that ask for it.
pub const STAGED: &str = "20261121T091500000Z-4444eeee";

/// The ids that transcripts show as they are.
pub const IDS: [&str; 7] =
    [ROUTINE, HEAP, REQUESTED, RUN, STAGED, "20261120T221455310Z-0badcafe", "20261101T030000000Z-9999ffff"];

/// Hours since each was taken. Half an hour more is added, so that a slow test does not see another figure.
const AGES: [(&str, u64); 4] = [(ROUTINE, 20 * 24 + 3), (HEAP, 2 * 24 + 1), (REQUESTED, 24 + 12), (RUN, 5)];

const HOUR_MS: u64 = 3_600_000;

/// An environment with a copy of the store.
pub fn environment() -> Environment {
    let environment = Environment::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wording/store-v1"), &environment.store());
    for name in ["staging", "requests", "samples", "quarantine", "trash"] {
        make_dir(&environment.store().join(name));
    }
    for (id, hours) in AGES {
        change_json(&environment, &format!("reports/{id}/meta.json"), |meta| {
            meta["store_ms"] = (now_ms() - hours * HOUR_MS - HOUR_MS / 2).into();
        });
    }
    environment
}

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the fixture is as old now as it was yesterday")]
pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Rewrites a JSON file of the store, or begins one.
pub fn change_json(environment: &Environment, name: &str, change: impl FnOnce(&mut Value)) {
    let path = environment.store().join(name);
    let mut value = fs::read(&path).map_or_else(|_| json!({}), |data| serde_json::from_slice(&data).unwrap());
    change(&mut value);
    fs::write(&path, serde_json::to_vec(&value).unwrap()).unwrap();
}

/// Puts a report with this content into a capture, in place of one of that name.
pub fn store_report(environment: &Environment, id: &str, name: &str, content: &str) {
    use sha2::{Digest, Sha256};
    let file = format!("{name}.fixture");
    let path = environment.store().join(format!("reports/{id}/{file}"));
    fs::write(&path, content).unwrap();
    set_mode(&path, 0o600);
    let sha256: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    change_json(environment, &format!("reports/{id}/meta.json"), |meta| {
        let reports = meta["reports"].as_array_mut().unwrap();
        reports.retain(|report| report["name"] != name);
        reports.push(json!({
            "name": name, "file": file, "content_type": "text/plain", "encoding": "identity",
            "raw_bytes": content.len(), "stored_bytes": content.len(), "sha256": sha256,
        }));
    });
}

/// This very process, which lives as long as the test, as records name it: pid, start and boot.
pub fn this_process() -> (u32, u64, String) {
    let start = start_of("self");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    (std::process::id(), start, boot.trim().to_owned())
}

/// The time at which a process started, in ticks since boot.
pub fn start_of(process: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// Writes the last sample of a process, a few polls old.
pub fn poll(environment: &Environment, pid: u32, start_ticks: u64, fields: &Value) {
    let seen = now_ms() - 4_000;
    let mut sample = json!({
        "start_ticks": start_ticks, "role": "puma", "name": "worker-0", "rss": 1_717_986_918_u64,
        "first_seen": seen - 2 * HOUR_MS, "last_seen": seen, "next_poll": seen + 60_000,
    });
    for (key, value) in fields.as_object().unwrap() {
        sample[key] = value.clone();
    }
    change_json(environment, &format!("samples/{pid}.json"), |value| *value = sample);
}

/// Takes the lease for this process, on a grant to a worker. Dropped, the lease is free.
pub fn take_lease(environment: &Environment, worker: (u32, u64), fields: &Value) -> File {
    let lock = File::create(environment.store().join("lease.lock")).unwrap();
    set_mode(&environment.store().join("lease.lock"), 0o600);
    // Not at once: a child that another test is starting has a copy of every descriptor until it executes its program.
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    record_grant(environment, worker, fields);
    lock
}

/// Records a grant to a worker.
pub fn record_grant(environment: &Environment, worker: (u32, u64), fields: &Value) {
    let boot_ms = boottime_ms();
    let mut record = json!({
        "schema": 1, "capture": STAGED, "generation": 5,
        "pid": worker.0, "start_ticks": worker.1, "boot_id": this_process().2, "role": "puma", "worker": "worker-0",
        "rule": "heap-on-growth", "granted_boot_ms": boot_ms.saturating_sub(65_000), "deadline_boot_ms": boot_ms + 535_000,
        "ended": false,
    });
    for (key, value) in fields.as_object().unwrap() {
        record[key] = value.clone();
    }
    change_json(environment, "lease.json", |value| *value = record);
}

// Of CLOCK_BOOTTIME, as /proc/uptime is.
fn boottime_ms() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let (seconds, rest) = uptime.split_once('.').unwrap();
    seconds.parse::<u64>().unwrap() * 1000 + rest[..2].parse::<u64>().unwrap() * 10
}

fn copy(from: &Path, to: &Path) {
    make_dir(to);
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            set_mode(&target, 0o600);
        }
    }
}

fn make_dir(path: &Path) {
    fs::create_dir(path).unwrap();
    set_mode(path, 0o700);
}
