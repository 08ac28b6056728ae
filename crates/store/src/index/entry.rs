//! A line of the index.

use serde::{Deserialize, Serialize};

use crate::MOST_BYTES;
use crate::id::Id;
use crate::report_name::ReportName;
use crate::{Store, meta};
use diagctl_fs as fs;
use diagctl_observe::clock::LAST_MS;

/// The marker file in a pinned capture's directory. The marker is authoritative, and the index keeps a copy.
pub const PIN_FILE: &str = "pinned";

/// The marker file in the directory of a capture that the remote has confirmed. Like the pin's, it is authoritative and empty.
pub const SHIPPED_FILE: &str = "shipped";

/// One line of the index: the data that `list` shows and retention uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The capture's id.
    pub id: Id,
    /// The sequence number, which orders captures.
    pub sequence: u64,
    /// Time of the capture, UTC, RFC 3339.
    pub created: String,
    /// Time of the capture on the store's time line, milliseconds.
    pub store_ms: u64,
    /// The machine's name.
    pub host: String,
    /// The pid of the process.
    pub pid: u32,
    /// The process's role.
    pub role: String,
    /// Its name within the role.
    pub worker: String,
    /// The rule.
    pub rule: String,
    /// The reason.
    pub reason: String,
    /// The request that was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The reports.
    pub reports: Vec<EntryReport>,
    /// Disk usage of the capture's directory in whole blocks, bytes.
    pub disk_bytes: u64,
    /// Set if the capture is pinned.
    pub pinned: bool,
    /// Set if the remote has confirmed the capture.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shipped: bool,
}

/// A report in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReport {
    /// Its name.
    pub name: ReportName,
    /// Size of the file, bytes.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Size of the uncompressed content, bytes.
    #[serde(default)]
    pub raw_bytes: u64,
    /// The reason why there is no data. With a size, the description of the damage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True for a heap dump that contains values of the application.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub values: bool,
    /// True if the file is encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

impl EntryReport {
    /// Creates an entry in which only the name is set.
    pub fn new(name: ReportName) -> Self {
        Self { name, stored_bytes: 0, raw_bytes: 0, error: None, values: false, encrypted: false }
    }

    /// Returns true if there is data, even damaged data. A stored file is compressed and so never empty.
    pub fn has_data(&self) -> bool {
        self.error.is_none() || self.stored_bytes > 0
    }
}

impl Entry {
    /// Returns true if every number is possible. Sizes are summed and times are subtracted, so other entries are ignored.
    pub fn is_plausible(&self) -> bool {
        let sizes = self.reports.iter().map(|report| report.stored_bytes.max(report.raw_bytes));
        sizes.chain([self.disk_bytes]).all(|bytes| bytes <= MOST_BYTES)
            && self.store_ms <= LAST_MS
            && self.sequence <= u64::MAX / 2
    }

    /// Creates the entry of a published capture.
    pub fn of(store: &Store, meta: &meta::Meta) -> Self {
        let dir = store.report_dir(&meta.id);
        Self {
            id: meta.id,
            sequence: meta.sequence,
            created: meta.created.clone(),
            store_ms: meta.store_ms,
            host: meta.host.clone(),
            pid: meta.pid,
            role: meta.role.clone(),
            worker: meta.worker.clone(),
            rule: meta.rule.clone(),
            reason: meta.trigger.reason.clone(),
            request: meta.request.clone(),
            reports: meta
                .reports
                .iter()
                .map(|r| EntryReport {
                    name: r.name.clone(),
                    stored_bytes: r.stored_bytes,
                    raw_bytes: r.raw_bytes,
                    error: r.error.clone(),
                    values: r.has_values(),
                    encrypted: r.encryption.is_some(),
                })
                .collect(),
            disk_bytes: fs::occupied_tree(&dir),
            pinned: dir.join(PIN_FILE).exists(),
            shipped: dir.join(SHIPPED_FILE).is_file(),
        }
    }
}
