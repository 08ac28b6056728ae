//! `meta.json`: the complete and immutable record of a capture.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::MOST_BYTES;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::report_name::ReportName;
use diagctl_fs::checksum;
use diagctl_fs::{self as fs, Spot};
use diagctl_observe::ProcessId;
use diagctl_observe::clock::LAST_MS;

/// The schema version that this program writes.
pub const SCHEMA: u32 = 1;

/// Maximum size of a `meta.json`, bytes.
pub const MAX_FILE: u64 = 4 << 20;

/// The record of a capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// The schema version of this record. Later versions add fields, and readers ignore unknown ones.
    pub schema: u32,
    /// The capture's id.
    pub id: Id,
    /// The sequence number of the capture in its store. It orders captures even if the clock was changed.
    pub sequence: u64,
    /// Time of the grant, UTC, RFC 3339.
    pub created: String,
    /// Time of the grant on the store's time line, milliseconds. Ages are computed from it.
    pub store_ms: u64,
    /// The machine's name.
    pub host: String,
    /// The boot in which the pid and the start time are valid.
    pub boot_id: String,
    /// The pid namespace in which the pid is valid: the inode number of `/proc/PID/ns/pid`. Zero in records of older versions.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid_ns: u64,
    /// The pid of the process.
    pub pid: u32,
    /// The process's start, in clock ticks since boot.
    pub start_time: u64,
    /// The process's role.
    pub role: String,
    /// Its name within the role.
    pub worker: String,
    /// The versions of diagctl, Ruby, Puma, …
    pub versions: BTreeMap<String, String>,
    /// The rule that was granted, or `on_demand` for requests without a rule.
    pub rule: String,
    /// The trigger's decision.
    pub trigger: Trigger,
    /// The cost of the capture: milliseconds (`_ms`), bytes (`_bytes`).
    pub cost: BTreeMap<String, Value>,
    /// All other values from the dumper.
    pub labels: BTreeMap<String, String>,
    /// The request that was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The age recipients to whom the encrypted reports are encrypted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// One entry for each report that was asked for.
    pub reports: Vec<Report>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The reason for a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trigger {
    /// The trigger's name.
    pub name: String,
    /// The reason in one sentence.
    pub reason: String,
    /// The figures that the trigger observed.
    pub observed: BTreeMap<String, Number>,
}

/// One report of a capture: data, damaged data with the place of the damage, or the reason why there is no data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub name: ReportName,
    /// Its file in the capture's directory, or `null` if there is no data.
    #[serde(default)]
    pub file: Option<String>,
    /// Media type of the uncompressed content.
    #[serde(default)]
    pub content_type: String,
    /// `gzip` or `zstd`.
    #[serde(default)]
    pub encoding: String,
    /// `age` if the compressed content is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Size of the uncompressed content, bytes.
    #[serde(default)]
    pub raw_bytes: u64,
    /// Size of the file, bytes.
    #[serde(default)]
    pub stored_bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The reason why there is no data. With a file, the description of the damage.
    #[serde(default)]
    pub error: Option<String>,
    /// Facts about a heap dump. Missing for one that was stored before heap graphs existed: it is JSON with values.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub heap: Option<Heap>,
    /// The time that producing the report took, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<Number>,
    /// How it was made, if that was not the usual way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Facts about a heap dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heap {
    /// `heap-graph`, or `json`: what `ObjectSpace.dump_all` wrote.
    pub format: String,
    /// `dump_all` or `walker`.
    pub producer: String,
    /// `none` or `all`: the values of the application that it contains.
    pub values: String,
    /// Objects that are missing because their records were damaged.
    #[serde(default)]
    pub lost: u64,
    /// Records that were damaged, and repaired.
    #[serde(default)]
    pub repaired: u64,
}

impl Heap {
    /// The format of a heap graph.
    pub const GRAPH: &str = "heap-graph";

    /// Describes a graph.
    pub fn graph(producer: &str, lost: u64, repaired: u64) -> Self {
        Self { format: Self::GRAPH.into(), producer: producer.into(), values: "none".into(), lost, repaired }
    }

    /// Describes a dump in JSON.
    pub fn json(producer: &str) -> Self {
        Self { format: "json".into(), producer: producer.into(), values: "all".into(), ..Self::default() }
    }
}

impl Meta {
    /// The process of which the capture is.
    pub fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, pid_ns: self.pid_ns, start_ticks: self.start_time, boot_id: self.boot_id.clone() }
    }

    /// Returns the file that more than one report names. No capture of diagctl has one.
    pub fn repeated_file(&self) -> Option<&str> {
        let mut seen = BTreeSet::new();
        self.reports.iter().filter_map(|report| report.file.as_deref()).find(|file| !seen.insert(*file))
    }
}

impl Report {
    /// Returns true if it is known to contain values of the application.
    pub fn has_values(&self) -> bool {
        self.heap.as_ref().is_some_and(|heap| heap.values == "all")
    }

    /// Creates the entry of a report that could not be made.
    pub fn failed(name: ReportName, error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::new(name) }
    }

    /// Creates an entry in which only the name is set.
    pub fn new(name: ReportName) -> Self {
        Self {
            name,
            file: None,
            content_type: String::new(),
            encoding: String::new(),
            encryption: None,
            raw_bytes: 0,
            stored_bytes: 0,
            sha256: None,
            error: None,
            heap: None,
            took_ms: None,
            note: None,
        }
    }

    /// Returns true if there is data that was already damaged when it was produced.
    pub fn is_damaged(&self) -> bool {
        self.file.is_some() && self.error.is_some()
    }
}

/// Reads the `meta.json` of a capture's directory.
pub fn read(dir: &Spot) -> Result<Meta> {
    parse(dir.path(), &fs::read_bounded(&dir.join("meta.json"), MAX_FILE)?)
}

/// Parses the `meta.json` of a capture's directory.
pub fn parse(dir: &Path, data: &[u8]) -> Result<Meta> {
    let path = dir.join("meta.json");
    let damaged = |why: String| Error::DamagedMeta { path: path.clone(), why };
    if !checksum::is_whole(data) {
        return Err(damaged("its checksum does not match".into()));
    }
    let meta: Meta = serde_json::from_slice(data).map_err(|e| damaged(e.to_string()))?;
    if meta.schema > SCHEMA {
        return Err(Error::NewerFile { path, found: meta.schema, known: SCHEMA });
    }
    if dir.file_name().is_none_or(|name| name != meta.id.as_str()) {
        return Err(damaged(format!("it describes capture {}", meta.id)));
    }
    let sizes = meta.reports.iter().map(|report| report.stored_bytes.max(report.raw_bytes));
    if sizes.max().unwrap_or(0) > MOST_BYTES || meta.store_ms > LAST_MS || meta.sequence > u64::MAX / 2 {
        return Err(damaged("a number in it is out of range".into()));
    }
    for report in &meta.reports {
        // The file name is joined to a path, so it must be a plain name.
        if report.file.as_ref().is_some_and(|file| !is_plain(file)) {
            return Err(damaged(format!("report {} does not name a plain file", diagctl_fs::quoted(&report.name))));
        }
    }
    Ok(meta)
}

fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\0'])
}
