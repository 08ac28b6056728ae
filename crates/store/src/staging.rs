//! What `acquire` decided, handed on to `put`, `finalize` and `abort` in `staging/<id>/.grant.json`; and the sidecar that
//! tells `finalize` of each report that was written.
//!
//! Names that begin with a dot are diagctl's own; they are gone before the capture is published.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};
use crate::meta;
use diagctl_fs::{self as fs, Durability, Spot};

/// The process that makes the snapshot reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Snapshot {
    /// A forked child, the dumper.
    #[default]
    Fork,
    /// The worker itself, which serves nobody meanwhile.
    InProcess,
}

/// `.grant.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The capture's record so far: everything but what the dump will bring.
    pub meta: meta::Meta,
    /// The reports that were promised, in order.
    pub planned: Vec<String>,
    /// The lease's generation.
    pub generation: u64,
    /// Who dumps.
    #[serde(default)]
    pub snapshot: Snapshot,
    /// When it was granted, CLOCK_BOOTTIME milliseconds.
    pub granted_boot_ms: u64,
    /// Bytes in `reports/` at the time of the grant. Nothing is added there before this capture is published, so a writer can
    /// compute the room that is left without opening the index. Absent in grants of earlier versions.
    #[serde(default)]
    pub reports_bytes: Option<u64>,
}

const FILE: &str = ".grant.json";

/// Writes it into a staging directory.
pub fn write(staging: &Spot, grant: &Grant) -> Result<()> {
    write_json(&staging.join(FILE), grant)
}

/// Reads it.
pub fn read(staging: &Spot) -> Result<Grant> {
    read_json(&staging.join(FILE))
}

/// Takes a report for one writer, for as long as the capture is staged: two that come at one moment would spoil each other's
/// work. False when somebody has taken it.
pub fn claim(staging: &Spot, name: &str) -> Result<bool> {
    match fs::create_new(&staging.join(format!(".{name}.claim"))) {
        Ok(_) => Ok(true),
        Err(e) if e.is_existing() => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Notes in the staging directory that a report was written, or why it was not.
pub fn write_sidecar(staging: &Spot, report: &meta::Report) -> Result<()> {
    write_json(&staging.join(sidecar_name(&report.name)), report)
}

/// What was noted of a report.
pub fn read_sidecar(staging: &Spot, name: &str) -> Result<Option<meta::Report>> {
    match read_json(&staging.join(sidecar_name(name))) {
        Ok(report) => Ok(Some(report)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

fn sidecar_name(report: &str) -> String {
    format!(".{report}.report.json")
}

fn write_json(spot: &Spot, value: &impl Serialize) -> Result<()> {
    let data = serde_json::to_vec(value).map_err(Error::encode(spot.display().to_string()))?;
    // Volatile: a staging directory does not outlive a power cut in any case.
    Ok(fs::write_atomic(spot, &data, Durability::Volatile)?)
}

fn read_json<T: DeserializeOwned>(spot: &Spot) -> Result<T> {
    let data = fs::read_bounded(spot, 4 << 20)?;
    serde_json::from_slice(&data)
        .map_err(|e| Error::DamagedStaging { path: spot.path().to_owned(), why: e.to_string() })
}
