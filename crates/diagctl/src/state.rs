//! What must survive restarts: due times, limits, budgets, what captures cost.
//!
//! Owns `<dir>/state.json`, replaced atomically and synced, and written before a grant, never after. An idle poll does
//! not write it. Times are on the store's time line (see `clock`), in milliseconds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::{Anchor, LAST_MS};
use crate::error::Failure;
use crate::exit_code::Exit;
use crate::fsio::{self, Durability, Spot};
use crate::seal;

/// The version that this program writes.
const SCHEMA: u32 = 1;

/// No state is larger: 32 MiB.
const MAX_FILE: u64 = 32 << 20;

/// No process and no report is larger: 16 TiB.
pub const MOST_BYTES: u64 = 1 << 44;

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this file.
    pub schema: u32,
    /// The store's time line.
    pub clock: Option<Anchor>,
    /// Counts grants; also the sequence number of captures.
    #[serde(default)]
    pub generation: u64,
    /// `diagctl pause`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// By name.
    #[serde(default)]
    pub rules: BTreeMap<String, RuleState>,
    /// Cost units spent in the last day.
    #[serde(default)]
    pub spent: Vec<Spent>,
    /// What reports cost last, by `role/report`.
    #[serde(default)]
    pub costs: BTreeMap<String, ReportCost>,
}

/// What one rule remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleState {
    /// Due times of its timers, by path within the trigger.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub due: BTreeMap<String, u64>,
    /// Levels that have fired, by path and subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disarmed: BTreeMap<String, Vec<usize>>,
    /// Counters of `memory.events` that were answered, by path and counter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Maxima that have fired, by path and subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub high_water: BTreeMap<String, HighWater>,
    /// When it was granted, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fires: Vec<u64>,
    /// When another rule's capture brought all of this rule's reports: its cooldown counts from there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered: Option<u64>,
    /// The second capture of a pair, when one is owed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// The process that was granted last, for `round_robin`.
    #[serde(default)]
    pub last_pid: u32,
}

/// The second capture of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The process that the first was taken of.
    pub pid: u32,
    /// Its start, in clock ticks since boot.
    pub start_ticks: u64,
    /// When the second is due.
    pub due: u64,
    /// Sequence number of the first.
    pub first: u64,
}

/// A maximum that has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// The figure.
    pub bytes: u64,
    /// When.
    pub at: u64,
}

/// Units spent at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// When.
    pub at: u64,
    /// How many.
    pub units: u32,
}

/// A run-time switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: u64,
    /// Until when; for ever without.
    pub until: Option<u64>,
    /// The user who said so.
    pub by: String,
}

/// What a report cost the last time it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportCost {
    /// Memory that its child used in addition, bytes; 0 when it was not measured.
    pub memory_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

impl State {
    // What a turned bit can make of a number, and what would overflow where it is added to.
    fn is_plausible(&self) -> bool {
        let units: u64 = self.spent.iter().map(|spent| u64::from(spent.units)).sum();
        let moments = self.clock.iter().map(|clock| clock.store_ms).chain(self.spent.iter().map(|spent| spent.at));
        moments.max().unwrap_or(0) <= LAST_MS
            && units <= u64::from(u32::MAX / 2)
            && self.generation <= u64::MAX / 2
            && self.clock.iter().all(|clock| clock.wall_ms.unsigned_abs() <= LAST_MS)
            && self.rules.values().all(RuleState::is_plausible)
            && self.costs.values().all(|cost| cost.memory_bytes.max(cost.stored_bytes) <= MOST_BYTES)
    }
}

impl RuleState {
    fn is_plausible(&self) -> bool {
        let marks = self.high_water.values().map(|mark| mark.at).chain(self.pair.iter().map(|pair| pair.due));
        let moments = self.due.values().chain(&self.fires).chain(&self.covered).copied().chain(marks);
        moments.max().unwrap_or(0) <= LAST_MS && self.high_water.values().all(|mark| mark.bytes <= MOST_BYTES)
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            clock: None,
            generation: 0,
            paused: None,
            rules: BTreeMap::new(),
            spent: Vec::new(),
            costs: BTreeMap::new(),
        }
    }
}

/// What was found in the place of the state.
#[derive(Debug)]
pub enum Found {
    /// A state.
    State(Box<State>),
    /// None: a new store, or one whose state was removed.
    Nothing,
    /// Something that cannot be understood, with the reason. Limits are not known then.
    Damaged(String),
}

/// Reads `state.json`.
pub fn load(dir: &Spot) -> Result<Found, Failure> {
    let spot = dir.join("state.json");
    let data = match fsio::read_bounded(&spot, MAX_FILE) {
        Ok(data) => data,
        Err(e) if e.is_not_found() => return Ok(Found::Nothing),
        Err(e) => return Err(e.into()),
    };
    parse(spot.path(), &data)
}

/// Understands the content of `state.json`, which the path is named for in errors.
pub fn parse(path: &Path, data: &[u8]) -> Result<Found, Failure> {
    if !seal::is_whole(data) {
        return Ok(Found::Damaged("its checksum does not match".into()));
    }
    let version = serde_json::from_slice::<Version>(data).map(|v| v.schema);
    if let Ok(schema) = version
        && schema > SCHEMA
    {
        return Err(newer(path, schema));
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

/// The failure for a file of a later version.
pub fn newer(path: &Path, schema: u32) -> Failure {
    Failure::new(
        Exit::NewerStore,
        format!("{} has version {schema}; this diagctl knows version {SCHEMA}", path.display()),
    )
    .hint("a newer diagctl wrote it; use that version")
}

/// Writes `state.json` so that it survives a power cut.
pub fn save(dir: &Spot, state: &State) -> Result<(), Failure> {
    let data = serde_json::to_vec(state).map_err(|e| Failure::failed(format!("cannot encode state.json: {e}")))?;
    Ok(fsio::write_atomic(&dir.join("state.json"), &seal::seal(&data), Durability::Synced)?)
}

impl Pause {
    /// Whether it still holds.
    pub fn holds(&self, now_ms: u64) -> bool {
        self.until.is_none_or(|until| now_ms < until)
    }

    /// One sentence for verdicts and `status`.
    pub fn reason(&self, now_ms: u64) -> String {
        let by = crate::error::printable(&self.by);
        match self.until {
            Some(until) => format!(
                "paused by {by} for another {}; `diagctl resume` ends it",
                crate::units::duration(until.saturating_sub(now_ms))
            ),
            None => format!("paused by {by}; `diagctl resume` ends it"),
        }
    }
}
