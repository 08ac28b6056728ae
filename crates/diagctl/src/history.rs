//! The history of polls: `samples.jsonl`, for `diagctl samples` and `diagctl simulate`.
//!
//! Two files of bounded size; when the newer one is full, it replaces the older. Never synced: it is for tuning rules.

mod ended;
mod lines;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use diagctl_observe::pressure::{Scope, Stalls};
use diagctl_store::Result;

use crate::fsio;
use crate::rules::memory::{Memory, Metric};
use crate::rules::readings::Readings;
use diagctl_store::Store;
use diagctl_store::{Process, ProcessId};

pub use ended::{By, Ended, ParentNote};
pub use lines::{Head, Key, Lines};

/// Each of the two files takes at most `1 / SHARE` of the store's cap.
const SHARE: u64 = 128;

/// One poll of one process. Figures are in bytes, times in milliseconds on the store's time line, stalls in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The time of the poll.
    pub at: u64,
    /// The process's pid.
    pub pid: u32,
    /// The pid namespace in which the pid is valid.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pid_ns: u64,
    /// The process's start, in clock ticks since boot.
    #[serde(default)]
    pub start_ticks: u64,
    /// The boot of the process's machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// The role.
    pub role: String,
    /// The name within the role.
    #[serde(default)]
    pub name: String,
    /// Memory figures, by the names that reasons use.
    pub memory: BTreeMap<String, u64>,
    /// The memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The host's memory.
    #[serde(default)]
    pub host_total: u64,
    /// Counters of `memory.events`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Stalled time of the cgroup: `some`, `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_stalls: Option<(u64, u64)>,
    /// Stalled time of the host: `some`, `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_stalls: Option<(u64, u64)>,
    /// Numbers that the application reported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<String, f64>,
    /// Events that the application named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub events: BTreeSet<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Recorded {
    /// Records the readings of a poll.
    pub fn of(process: &Process, readings: &Readings, at: u64) -> Self {
        let memory = Metric::ALL.iter().filter_map(|m| Some((m.name().to_owned(), readings.memory.get(*m).ok()?)));
        let stalls = |scope| Some(readings.stalls.get(&scope)?.as_ref().ok().map(|s| (s.some, s.full))).flatten();
        Self {
            at,
            pid: process.id.pid,
            pid_ns: process.id.pid_ns,
            start_ticks: process.id.start_ticks,
            boot_id: process.id.boot_id.clone(),
            role: process.role.clone(),
            name: process.name.clone(),
            memory: memory.collect(),
            limit: readings.memory.limit,
            host_total: readings.memory.host_total,
            counters: readings.counters.clone().unwrap_or_default(),
            cgroup_stalls: stalls(Scope::Cgroup),
            host_stalls: stalls(Scope::Host),
            gauges: readings.gauges.clone(),
            events: readings.events.clone(),
        }
    }

    /// The process.
    pub fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, pid_ns: self.pid_ns, start_ticks: self.start_ticks, boot_id: self.boot_id.clone() }
    }

    /// Returns the process and the readings as the poll saw them.
    pub fn replay(&self) -> (Process, Readings) {
        let process = Process { id: self.process(), role: self.role.clone(), name: self.name.clone() };
        let mut memory =
            Memory { limit: self.limit, host_total: self.host_total, available: u64::MAX, ..Memory::default() };
        for metric in Metric::ALL {
            let value = self.memory.get(metric.name()).copied();
            memory.set(metric, value.ok_or_else(|| format!("{} was not recorded", metric.name())));
        }
        let mut readings = Readings { memory, ..Readings::default() };
        if !self.counters.is_empty() {
            readings.counters = Ok(self.counters.clone());
        }
        for (scope, stalls) in [(Scope::Cgroup, self.cgroup_stalls), (Scope::Host, self.host_stalls)] {
            let stalls = stalls.map(|(some, full)| Stalls { some, full });
            readings.stalls.insert(scope, stalls.ok_or_else(|| "memory pressure was not recorded".into()));
        }
        readings.gauges.clone_from(&self.gauges);
        readings.events.clone_from(&self.events);
        (process, readings)
    }
}

/// Appends a poll. Errors are ignored, because recording is only a convenience.
pub fn append(store: &Store, max_use: u64, recorded: &Recorded) {
    let path = store.path("samples.jsonl");
    let Ok(line) = serde_json::to_string(recorded) else { return };
    // A line torn by a crash spoils the next one too; that is cheaper than checking for it at every poll.
    if fsio::append_raw(&path, format!("{line}\n").as_bytes()).is_ok_and(|length| length > max_use / SHARE) {
        let _ = fsio::rename(&path, &store.path("samples.1.jsonl"));
    }
}

/// Appends what a parent says of the end of a process.
pub fn append_note(store: &Store, at: u64, note: &ParentNote) -> Result<()> {
    let line = format!("{}\n", ended::format(at, note));
    fsio::append_raw(&store.path("samples.jsonl"), line.as_bytes())?;
    Ok(())
}

/// Returns all recorded polls, oldest first. Lines torn by a crash are skipped.
pub fn read(store: &Store) -> Result<Vec<Recorded>> {
    Ok(content(store)?.iter().flat_map(|file| parse(file)).collect())
}

/// Returns the files of the history, the oldest first, for [`Lines`].
pub fn content(store: &Store) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for name in ["samples.1.jsonl", "samples.jsonl"] {
        match fsio::read_bounded(&store.path(name), 1 << 30) {
            Ok(data) => all.push(data),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(all)
}

/// Returns the lines that can be parsed.
pub fn parse(data: &[u8]) -> impl Iterator<Item = Recorded> + '_ {
    data.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}
