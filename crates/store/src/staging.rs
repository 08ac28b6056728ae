//! `staging/<id>/.grant.json`: the decision of `acquire`, for `put`, `finalize` and `abort`. A sidecar file beside it tells
//! `finalize` about each report that was written.
//!
//! Names that begin with a dot are diagctl's own. These files are deleted before the capture is published.

use crate::ReportName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::encryption::Encryption;
use crate::error::{Error, Result};
use crate::meta;
use diagctl_fs::{self as fs, Durability, Spot};

/// The process that makes the snapshot reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Snapshot {
    /// A forked child, the dumper.
    #[default]
    Fork,
    /// The worker itself, which serves no requests meanwhile.
    InProcess,
}

/// The contents of `.grant.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The capture's record so far, without the values that the dump will add.
    pub meta: meta::Meta,
    /// The promised reports, in order.
    pub planned: Vec<ReportName>,
    /// The lease's generation.
    pub generation: u64,
    /// The process that makes the snapshot reports.
    #[serde(default)]
    pub snapshot: Snapshot,
    /// Time of the grant, CLOCK_BOOTTIME in milliseconds.
    pub granted_boot_ms: u64,
    /// Disk usage of `reports/` at the time of the grant, bytes. No other capture is added before this one is published, so a
    /// writer can compute the remaining space without opening the index. Missing in grants of older versions.
    #[serde(default)]
    pub reports_bytes: Option<u64>,
    /// The encryption of the reports. Decided here once, so that a configuration that changes while a capture is written cannot
    /// turn it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Box<Encryption>>,
}

const FILE: &str = ".grant.json";

/// Writes the grant into a staging directory.
pub fn write(staging: &Spot, grant: &Grant) -> Result<()> {
    write_json(&staging.join(FILE), grant)
}

/// Reads the grant from a staging directory.
pub fn read(staging: &Spot) -> Result<Grant> {
    read_json(&staging.join(FILE))
}

/// Claims a report for one writer while the capture is staged, because concurrent writers would spoil each other's files. Returns
/// false if the report is claimed already.
pub fn claim(staging: &Spot, name: &ReportName) -> Result<bool> {
    match fs::create_new(&staging.join(format!(".{name}.claim"))) {
        Ok(_) => Ok(true),
        Err(e) if e.is_existing() => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Removes what an earlier writer of a report left, so that another one may claim it. That writer has ended.
pub fn release(staging: &Spot, name: &ReportName) -> Result<()> {
    let file = read_sidecar(staging, name)?.and_then(|report| report.file);
    discard_partial(staging, name)?;
    for leftover in [sidecar_name(name), format!(".{name}.claim")].into_iter().chain(file) {
        fs::remove(&staging.join(leftover))?;
    }
    Ok(())
}

/// The file of a report while it is written.
pub fn partial(staging: &Spot, name: &str) -> Spot {
    staging.join(format!(".{name}.partial"))
}

/// Removes what a writer that has died left of a report.
pub fn discard_partial(staging: &Spot, name: &str) -> Result<()> {
    Ok(fs::remove(&partial(staging, name))?)
}

/// Writes the sidecar of a report: its entry, or the reason why it was not written.
pub fn write_sidecar(staging: &Spot, report: &meta::Report) -> Result<()> {
    write_json(&staging.join(sidecar_name(&report.name)), report)
}

/// Reads the sidecar of a report.
pub fn read_sidecar(staging: &Spot, name: &ReportName) -> Result<Option<meta::Report>> {
    match read_json(&staging.join(sidecar_name(name))) {
        Ok(report) => Ok(Some(report)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

fn sidecar_name(report: &ReportName) -> String {
    format!(".{report}.report.json")
}

fn write_json(spot: &Spot, value: &impl Serialize) -> Result<()> {
    let data = serde_json::to_vec(value).map_err(Error::encode(spot.display().to_string()))?;
    // Volatile, because a staging directory does not outlive a power cut.
    Ok(fs::write_atomic(spot, &data, Durability::Volatile)?)
}

fn read_json<T: DeserializeOwned>(spot: &Spot) -> Result<T> {
    let data = fs::read_bounded(spot, 4 << 20)?;
    serde_json::from_slice(&data)
        .map_err(|e| Error::DamagedStaging { path: spot.path().to_owned(), why: e.to_string() })
}
