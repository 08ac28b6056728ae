//! The state that must survive restarts: due times, limits, budgets, and the costs of captures.
//!
//! Owns `<dir>/state.json`, which is replaced atomically and synced. It is written before a grant, never after; an idle poll
//! does not write it. Times are in milliseconds on the store's time line (see `clock`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::{Anchor, LAST_MS, Reading};
use crate::fsio::{self, Durability, Spot};
use crate::seal;
use diagctl_store::{Error, MOST_BYTES, ProcessId, Result};

/// The schema version that this program writes.
const SCHEMA: u32 = 1;

/// The maximum size of the file: 32 MiB.
const MAX_FILE: u64 = 32 << 20;

/// The highest generation. A higher one is damage.
pub const MAX_GENERATION: u64 = u64::MAX / 2;

/// The contents of `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The schema version of this file.
    pub schema: u32,
    /// The anchor of the store's time line.
    pub clock: Option<Anchor>,
    /// The number of grants; also the sequence number of captures.
    #[serde(default)]
    pub generation: u64,
    /// The time at which the granted dump must be over. From then on every poll looks after the lease. `None` when the capture
    /// was published or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<LeaseUntil>,
    /// The pause set by `diagctl pause`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// The state of each rule, by name.
    #[serde(default)]
    pub rules: BTreeMap<String, RuleState>,
    /// Cost units spent in the last day.
    #[serde(default)]
    pub spent: Vec<Spent>,
    /// The last cost of each report, by `role/report`.
    #[serde(default)]
    pub costs: BTreeMap<String, ReportCost>,
}

/// The end of a granted lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseUntil {
    /// CLOCK_BOOTTIME in milliseconds.
    pub boot_ms: u64,
    /// The boot. A lease does not outlive it, but what was staged does.
    pub boot_id: String,
}

/// The time after the deadline in which the dumper's alarm, its worker and `put` end a dump themselves, milliseconds.
pub const LEASE_GRACE_MS: u64 = 10_000;

impl LeaseUntil {
    /// The end of a lease that is granted now.
    pub fn of(now: &Reading, deadline_ms: u64) -> Self {
        Self { boot_ms: now.boot_ms + deadline_ms + LEASE_GRACE_MS, boot_id: now.boot_id.clone() }
    }

    /// Returns true if the time is over, or the machine has been restarted since.
    pub fn is_over(&self, now: &Reading) -> bool {
        self.boot_id != now.boot_id || now.boot_ms > self.boot_ms
    }
}

/// The state of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleState {
    /// Due times of its timers, by path within the trigger.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub due: BTreeMap<String, u64>,
    /// Levels that have fired, by path and subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disarmed: BTreeMap<String, Vec<usize>>,
    /// Counters of `memory.events` that have been answered, by path and counter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Maxima that have fired, by path and subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub high_water: BTreeMap<String, HighWater>,
    /// Times of grants, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fires: Vec<u64>,
    /// The time at which another rule's capture included all of this rule's reports. The cooldown counts from there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered: Option<u64>,
    /// The second capture of a pair, if one is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// The time of the last grant by process, while `per_process` looks at it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub captured: BTreeMap<String, u64>,
    /// The pid of the last process that was granted a capture. For older versions; they compare nothing else.
    #[serde(default)]
    pub last_pid: u32,
    /// The last process that was granted a capture, for `round_robin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ProcessId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_left(left: &u32) -> bool {
    *left == 0
}

/// A pending second capture of a pair, or second or third of three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The process of the first capture.
    #[serde(flatten)]
    pub process: ProcessId,
    /// The time at which the second capture is due.
    pub due: u64,
    /// Sequence number of the first capture.
    pub first: u64,
    /// The number of captures that follow this one.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub left: u32,
}

/// A maximum that has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// The maximum, in bytes.
    pub bytes: u64,
    /// The time at which it fired.
    pub at: u64,
}

/// Cost units spent at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The time.
    pub at: u64,
    /// The number of units.
    pub units: u32,
}

/// A pause of all captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The time at which it began.
    pub since: u64,
    /// The time at which it ends; never, if absent.
    pub until: Option<u64>,
    /// The user who set it.
    pub by: String,
}

/// The cost of a report when it was last made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportCost {
    /// Additional memory that its child used, bytes; 0 if it was not measured.
    pub memory_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

impl State {
    // Rejects numbers that only a flipped bit explains, or that would overflow in a sum.
    fn is_plausible(&self) -> bool {
        let units: u64 = self.spent.iter().map(|spent| u64::from(spent.units)).sum();
        let moments = self.clock.iter().map(|clock| clock.store_ms).chain(self.spent.iter().map(|spent| spent.at));
        moments.max().unwrap_or(0) <= LAST_MS
            && units <= u64::from(u32::MAX / 2)
            && self.generation <= MAX_GENERATION
            && self.clock.iter().all(|clock| clock.wall_ms.unsigned_abs() <= LAST_MS)
            && self.rules.values().all(RuleState::is_plausible)
            && self.costs.values().all(|cost| cost.memory_bytes.max(cost.stored_bytes) <= MOST_BYTES)
    }
}

impl RuleState {
    /// Returns true if levels or maxima of processes are remembered.
    pub fn has_marks_of_processes(&self) -> bool {
        self.disarmed.keys().chain(self.high_water.keys()).any(|key| is_of_process(key))
    }

    /// Forgets the levels and maxima of processes that are not known any more. `is_known` gets the key of a process.
    pub fn forget_processes(&mut self, is_known: impl Fn(&str) -> bool) {
        let keeps = |key: &String| !is_of_process(key) || is_known(key.rsplit('|').next().unwrap_or_default());
        self.disarmed.retain(|key, _| keeps(key));
        self.high_water.retain(|key, _| keeps(key));
    }

    fn is_plausible(&self) -> bool {
        let marks = self.high_water.values().map(|mark| mark.at).chain(self.pair.iter().map(|pair| pair.due));
        let moments = self
            .due
            .values()
            .chain(&self.fires)
            .chain(self.captured.values())
            .chain(&self.covered)
            .copied()
            .chain(marks);
        moments.max().unwrap_or(0) <= LAST_MS && self.high_water.values().all(|mark| mark.bytes <= MOST_BYTES)
    }
}

// Marks have the keys `path|process` and, for figures of a cgroup or the host, `path|metric`. Only a process's key has an `@`.
fn is_of_process(key: &str) -> bool {
    key.rsplit('|').next().is_some_and(|subject| subject.contains('@'))
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            clock: None,
            generation: 0,
            lease_until: None,
            paused: None,
            rules: BTreeMap::new(),
            spent: Vec::new(),
            costs: BTreeMap::new(),
        }
    }
}

/// The result of reading the state.
#[derive(Debug)]
pub enum Found {
    /// A valid state.
    State(Box<State>),
    /// No file: a new store, or one whose state was removed.
    Nothing,
    /// A file that cannot be parsed, with the reason. The limits are then unknown.
    Damaged(String),
}

/// Reads `state.json`.
pub fn load(dir: &Spot) -> Result<Found> {
    let spot = dir.join("state.json");
    let data = match fsio::read_bounded(&spot, MAX_FILE) {
        Ok(data) => data,
        Err(e) if e.is_not_found() => return Ok(Found::Nothing),
        Err(e) => return Err(e.into()),
    };
    parse(spot.path(), &data)
}

/// Parses the content of `state.json`. The path is for errors.
pub fn parse(path: &Path, data: &[u8]) -> Result<Found> {
    if !seal::is_whole(data) {
        return Ok(Found::Damaged("its checksum does not match".into()));
    }
    let version = serde_json::from_slice::<Version>(data).map(|v| v.schema);
    if let Ok(schema) = version
        && schema > SCHEMA
    {
        return Err(Error::NewerFile { path: path.to_owned(), found: schema, known: SCHEMA });
    }
    Ok(match serde_json::from_slice::<State>(data) {
        Ok(state) if !state.is_plausible() => Found::Damaged("a number in it is out of range".into()),
        Ok(state) => Found::State(Box::new(state)),
        Err(e) => Found::Damaged(e.to_string()),
    })
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// Writes `state.json` so that it survives a power cut.
pub fn save(dir: &Spot, state: &State) -> Result<()> {
    let data = serde_json::to_vec(state).map_err(Error::encode("state.json"))?;
    Ok(fsio::write_atomic(&dir.join("state.json"), &seal::seal(&data), Durability::Synced)?)
}

impl Pause {
    /// Returns true while the pause is in force.
    pub fn holds(&self, now_ms: u64) -> bool {
        self.until.is_none_or(|until| now_ms < until)
    }

    /// Describes the pause in one sentence, for verdicts and `status`.
    pub fn reason(&self, now_ms: u64) -> String {
        let by = diagctl_fs::printable(&self.by);
        match self.until {
            Some(until) => format!(
                "paused by {by} for another {}; `diagctl resume` ends it",
                crate::units::duration(until.saturating_sub(now_ms))
            ),
            None => format!("paused by {by}; `diagctl resume` ends it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_processes_that_are_gone_are_forgotten_and_all_others_kept() {
        let keys = ["|1@10/4/b", "any[0]|1@10/4/b", "|2@20/4/b", "|cgroup_working_set", "|host_used"];
        let mut marks = RuleState::default();
        for key in keys {
            marks.disarmed.insert(key.into(), vec![0]);
            marks.high_water.insert(key.into(), HighWater { bytes: 1, at: 1 });
        }
        assert!(marks.has_marks_of_processes());
        marks.forget_processes(|process| process == "2@20/4/b");
        let kept = ["|2@20/4/b", "|cgroup_working_set", "|host_used"];
        assert!(marks.disarmed.keys().eq(&kept) && marks.high_water.keys().eq(&kept), "{marks:?}");
        marks.forget_processes(|_| false);
        assert!(!marks.has_marks_of_processes());
    }
}
