//! `meta.json` of a capture: immutable, and sufficient by itself.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::MOST_BYTES;
use crate::error::{Error, Result};
use diagctl_fs::checksum;
use diagctl_fs::{self as fs, Spot};
use diagctl_observe::clock::LAST_MS;

/// The version that this program writes.
pub const SCHEMA: u32 = 1;

/// No `meta.json` is larger.
pub const MAX_FILE: u64 = 4 << 20;

/// What one capture is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Version of this record. Later versions add fields; readers ignore what they do not know.
    pub schema: u32,
    /// `<UTC to the millisecond>-<random>`.
    pub id: String,
    /// Counts captures of the store; sorts them whatever the clock did.
    pub sequence: u64,
    /// When it was granted, UTC, RFC 3339.
    pub created: String,
    /// The same on the store's time line, milliseconds; ages are computed from it.
    pub store_ms: u64,
    /// The machine's name.
    pub host: String,
    /// The boot in which pid and start time count.
    pub boot_id: String,
    /// The process.
    pub pid: u32,
    /// Its start, in clock ticks since boot.
    pub start_time: u64,
    /// What it does.
    pub role: String,
    /// Its name within the role.
    pub worker: String,
    /// Of diagctl, Ruby, Puma, …
    pub versions: BTreeMap<String, String>,
    /// The rule that was granted; `on_demand` for requests without one.
    pub rule: String,
    /// Why.
    pub trigger: Trigger,
    /// What it cost: milliseconds (`_ms`), bytes (`_bytes`).
    pub cost: BTreeMap<String, Value>,
    /// Anything else that the dumper told.
    pub labels: BTreeMap<String, String>,
    /// The request that was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// One entry a report that was asked for.
    pub reports: Vec<Report>,
}

/// Why a capture was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trigger {
    /// The trigger's name.
    pub name: String,
    /// One sentence.
    pub reason: String,
    /// The figures that it saw.
    pub observed: BTreeMap<String, Number>,
}

/// One report of a capture: data, the reason why there is none, or damaged data and where the damage is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Its file in the capture's directory; `null` when there is no data.
    pub file: Option<String>,
    /// Media type of the uncompressed content.
    pub content_type: String,
    /// `gzip` or `zstd`.
    pub encoding: String,
    /// Size of the uncompressed content.
    pub raw_bytes: u64,
    /// Size of the file.
    pub stored_bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: Option<String>,
    /// Why there is no data; beside a file, where its content is damaged.
    pub error: Option<String>,
    /// How long it took to make, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<Number>,
}

impl Report {
    /// An entry for a report that could not be made.
    pub fn failed(name: &str, error: impl Into<String>) -> Self {
        Self { name: name.to_owned(), error: Some(error.into()), ..Self::default() }
    }

    /// Whether there is data, but damaged as it was produced.
    pub fn is_damaged(&self) -> bool {
        self.file.is_some() && self.error.is_some()
    }
}

/// Reads the `meta.json` of a capture's directory.
pub fn read(dir: &Spot) -> Result<Meta> {
    parse(dir.path(), &fs::read_bounded(&dir.join("meta.json"), MAX_FILE)?)
}

/// Understands the `meta.json` of a capture's directory.
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
        return Err(damaged(format!("it describes capture {}", diagctl_fs::quoted(&meta.id))));
    }
    let sizes = meta.reports.iter().map(|report| report.stored_bytes.max(report.raw_bytes));
    if sizes.max().unwrap_or(0) > MOST_BYTES || meta.store_ms > LAST_MS || meta.sequence > u64::MAX / 2 {
        return Err(damaged("a number in it is out of range".into()));
    }
    for report in &meta.reports {
        // The file name is joined to a path: it must be a plain name.
        if report.file.as_ref().is_some_and(|file| !is_plain(file)) {
            return Err(damaged(format!("report {} does not name a plain file", diagctl_fs::quoted(&report.name))));
        }
    }
    Ok(meta)
}

fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\0'])
}
