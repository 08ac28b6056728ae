//! On-demand requests: one file each in `requests/`, until the capture that serves it is published.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::fsio::{self, Durability};
use crate::store::process::Process;
use crate::store::{Store, events};

/// A request whose capture fails is tried again, so often in all.
pub const MAX_ATTEMPTS: u32 = 3;

/// No file of a request is larger.
const MAX_FILE: u64 = 64 << 10;

/// `requests/<id>.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Version of this record.
    pub schema: u32,
    /// Sorts by time.
    pub id: String,
    /// The reports; empty for whatever the rule, or the routine, brings.
    pub reports: Vec<String>,
    /// Only a process of this role.
    pub role: Option<String>,
    /// Only the worker of this name.
    pub name: Option<String>,
    /// Only this process.
    pub pid: Option<u32>,
    /// Why somebody wants it.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When it was made, on the store's time line.
    pub created: u64,
    /// When nobody waits for it any more, on the store's time line.
    pub expires: u64,
    /// How often a capture was begun for it.
    pub attempts: u32,
    /// The capture that was begun last.
    pub capture: Option<String>,
}

impl Request {
    /// Whether a process is meant.
    pub fn is_for(&self, process: &Process) -> bool {
        self.pid.is_none_or(|pid| pid == process.pid)
            && self.role.as_deref().is_none_or(|role| role == process.role)
            && self.name.as_deref().is_none_or(|name| name == process.name)
    }
}

/// Puts a request in.
pub fn write(store: &Store, request: &Request) -> Result<(), Failure> {
    let data = serde_json::to_vec(request).map_err(|e| Failure::failed(format!("cannot encode the request: {e}")))?;
    Ok(fsio::write_atomic(&store.path("requests").join(format!("{}.json", request.id)), &data, Durability::Synced)?)
}

/// The requests that wait, oldest first. A file that is no request is left alone.
pub fn list(store: &Store) -> Result<Vec<Request>, Failure> {
    let dir = store.path("requests");
    let entries = match fsio::list(&dir) {
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        other => other?,
    };
    let mut requests: Vec<Request> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.name.into_string().ok()?;
            let id = name.strip_suffix(".json").filter(|id| !id.starts_with('.'))?;
            parse(id, &fsio::read_bounded(&dir.join(&name), MAX_FILE).ok()?)
        })
        .collect();
    requests.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(requests)
}

/// One request; nothing where it is not there, or cannot be understood.
pub fn read(store: &Store, id: &str) -> Option<Request> {
    let spot = store.path("requests").join(format!("{id}.json"));
    parse(id, &fsio::read_bounded(&spot, MAX_FILE).ok().filter(|_| !id.contains('/'))?)
}

/// Understands the file of a request; `None` where it is not that of this id.
pub fn parse(id: &str, data: &[u8]) -> Option<Request> {
    serde_json::from_slice(data).ok().filter(|request: &Request| request.id == id)
}

/// Takes a request out.
pub fn remove(store: &Store, id: &str) -> Result<(), Failure> {
    Ok(fsio::remove_file(&store.path("requests").join(format!("{id}.json")))?)
}

/// After a capture came to nothing: the request that it served is tried again, or given up after [`MAX_ATTEMPTS`].
pub fn give_back(store: &Store, id: &str, why: &str) -> Result<(), Failure> {
    let Some(request) = read(store, id) else { return Ok(()) };
    if request.attempts >= MAX_ATTEMPTS {
        events::record(store, &events::Event::request_failed(id, &format!("{why} ({} attempts)", request.attempts)));
        return remove(store, id);
    }
    Ok(())
}
