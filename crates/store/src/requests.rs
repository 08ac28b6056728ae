//! On-demand requests: one file each in `requests/`, kept until the capture that serves it is published.

mod crowd;

use crate::ReportName;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::Id;
use crate::process::{Process, ProcessId};
use crate::{Store, events};
use diagctl_fs::{self as fs, Durability};

/// Maximum number of attempts. A request whose capture fails is tried again.
pub const MAX_ATTEMPTS: u32 = 3;

/// Maximum size of a request file, bytes.
const MAX_FILE: u64 = 64 << 10;

/// The contents of `requests/<id>.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// The schema version of this record.
    pub schema: u32,
    /// The id of the request. Ids sort by time.
    pub id: String,
    /// The wanted reports. If empty, the reports of the rule or the routine reports.
    pub reports: Vec<ReportName>,
    /// Restricts the request to processes of this role.
    pub role: Option<String>,
    /// Restricts the request to the worker of this name.
    pub name: Option<String>,
    /// Restricts the request to processes with this pid.
    pub pid: Option<u32>,
    /// Restricts the request to this exact process. Missing in requests of older versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// The reason for the request.
    pub reason: String,
    /// The person or program that made the request.
    pub by: String,
    /// Time of the request, on the store's time line.
    pub created: u64,
    /// Time at which the request expires, on the store's time line.
    pub expires: u64,
    /// It keeps to the budgets of the store and the limits of its rule: a request through the remote does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub budgeted: bool,
    /// Number of captures that were started for the request.
    pub attempts: u32,
    /// The last capture that was started for the request.
    pub capture: Option<Id>,
}

impl Request {
    /// Returns true if the request may be served by this process.
    pub fn is_for(&self, process: &Process) -> bool {
        self.pid.is_none_or(|pid| pid == process.id.pid)
            && self.process.as_ref().is_none_or(|wanted| wanted.is(&process.id))
            && self.role.as_deref().is_none_or(|role| role == process.role)
            && self.name.as_deref().is_none_or(|name| name == process.name)
    }
}

/// Writes a request.
pub fn write(store: &Store, request: &Request) -> Result<()> {
    let data = serde_json::to_vec(request).map_err(Error::encode("the request"))?;
    Ok(fs::write_atomic(&store.path("requests").join(format!("{}.json", request.id)), &data, Durability::Synced)?)
}

/// Lists the pending requests, oldest first. Skips files that are not requests.
pub fn list(store: &Store) -> Result<Vec<Request>> {
    let ids = ids(store, usize::MAX)?.unwrap_or_default();
    Ok(ids.iter().filter_map(|id| read(store, id)).collect())
}

/// Lists the requests that a poll considers, oldest first. If there are so many that a poll would be slow, these are only the
/// oldest and the newest, see [`crowd`]. The caller holds the state lock.
pub fn for_poll(store: &Store) -> Result<Vec<Request>> {
    match ids(store, crowd::FEW)? {
        Some(ids) => Ok(ids.iter().filter_map(|id| read(store, id)).collect()),
        None => crowd::pending(store),
    }
}

// Returns the ids from the file names, sorted. Returns `None` if there are more than `most` files.
fn ids(store: &Store, most: usize) -> Result<Option<Vec<String>>> {
    let entries = match fs::list(&store.path("requests")) {
        Err(e) if e.is_not_found() => return Ok(Some(Vec::new())),
        other => other?,
    };
    let mut ids = Vec::new();
    for (i, entry) in entries.flatten().enumerate() {
        if i == most {
            return Ok(None);
        }
        let id = entry.name.to_str().and_then(|name| name.strip_suffix(".json"));
        ids.extend(id.filter(|id| !id.starts_with('.')).map(str::to_owned));
    }
    ids.sort_unstable();
    Ok(Some(ids))
}

/// Reads a request. Returns `None` if it does not exist or cannot be parsed.
pub fn read(store: &Store, id: &str) -> Option<Request> {
    let spot = store.path("requests").join(format!("{id}.json"));
    parse(id, &fs::read_bounded(&spot, MAX_FILE).ok().filter(|_| !id.contains('/'))?)
}

/// Parses the file of a request. Returns `None` if it is not the file of this id.
pub fn parse(id: &str, data: &[u8]) -> Option<Request> {
    serde_json::from_slice(data).ok().filter(|request: &Request| request.id == id)
}

/// Deletes a request.
pub fn remove(store: &Store, id: &str) -> Result<()> {
    Ok(fs::remove_file(&store.path("requests").join(format!("{id}.json")))?)
}

/// Handles a failed capture: the request that it served becomes pending again, or is dropped after [`MAX_ATTEMPTS`].
pub fn give_back(store: &Store, id: &str, why: &str) -> Result<()> {
    let Some(request) = read(store, id) else { return Ok(()) };
    if request.attempts >= MAX_ATTEMPTS {
        events::record(store, &events::Event::request_failed(id, &format!("{why} ({} attempts)", request.attempts)));
        return remove(store, id);
    }
    Ok(())
}
