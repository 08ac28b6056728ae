//! On-demand requests: one file each in `requests/`, until the capture that serves it is published.

mod crowd;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::process::Process;
use crate::{Store, events};
use diagctl_fs::{self as fs, Durability};

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
pub fn write(store: &Store, request: &Request) -> Result<()> {
    let data = serde_json::to_vec(request).map_err(Error::encode("the request"))?;
    Ok(fs::write_atomic(&store.path("requests").join(format!("{}.json", request.id)), &data, Durability::Synced)?)
}

/// The requests that wait, oldest first. A file that is no request is left alone.
pub fn list(store: &Store) -> Result<Vec<Request>> {
    let ids = ids(store, usize::MAX)?.unwrap_or_default();
    Ok(ids.iter().filter_map(|id| read(store, id)).collect())
}

/// The requests that a poll looks at, oldest first. All of them, unless there are so many that it would be slow: then the oldest
/// and the newest, see [`crowd`]. Under the state lock.
pub fn for_poll(store: &Store) -> Result<Vec<Request>> {
    match ids(store, crowd::FEW)? {
        Some(ids) => Ok(ids.iter().filter_map(|id| read(store, id)).collect()),
        None => crowd::look(store),
    }
}

// The ids in the file names, sorted; `None` if there are more than `most` files.
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

/// One request; nothing where it is not there, or cannot be understood.
pub fn read(store: &Store, id: &str) -> Option<Request> {
    let spot = store.path("requests").join(format!("{id}.json"));
    parse(id, &fs::read_bounded(&spot, MAX_FILE).ok().filter(|_| !id.contains('/'))?)
}

/// Understands the file of a request; `None` where it is not that of this id.
pub fn parse(id: &str, data: &[u8]) -> Option<Request> {
    serde_json::from_slice(data).ok().filter(|request: &Request| request.id == id)
}

/// Takes a request out.
pub fn remove(store: &Store, id: &str) -> Result<()> {
    Ok(fs::remove_file(&store.path("requests").join(format!("{id}.json")))?)
}

/// After a capture came to nothing: the request that it served is tried again, or given up after [`MAX_ATTEMPTS`].
pub fn give_back(store: &Store, id: &str, why: &str) -> Result<()> {
    let Some(request) = read(store, id) else { return Ok(()) };
    if request.attempts >= MAX_ATTEMPTS {
        events::record(store, &events::Event::request_failed(id, &format!("{why} ({} attempts)", request.attempts)));
        return remove(store, id);
    }
    Ok(())
}
