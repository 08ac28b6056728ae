//! The crashes of the heap walker, so that a walker that failed once in a Ruby is not tried in it again.

use serde::{Deserialize, Serialize};

use crate::Store;
use crate::error::{Error, Result};
pub use crate::layout::WALKER as FILE;
use diagctl_fs::{self as fs, Durability};

/// How many failures are kept. The oldest go first.
const MOST: usize = 32;
const MAX_FILE: u64 = 1 << 20;

/// One failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WalkerFailure {
    /// The Ruby: its version and its file, as the dumper describes it.
    pub ruby: String,
    /// SHA-256 of the walker.
    pub walker: String,
    /// How it ended.
    pub reason: String,
    /// The capture that it was to make.
    pub capture: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Failures {
    schema: u32,
    failures: Vec<WalkerFailure>,
}

/// Returns the failure of this walker in this Ruby. A file that cannot be read counts as empty.
pub fn find(store: &Store, ruby: &str, walker: &str) -> Option<WalkerFailure> {
    read(store).failures.into_iter().find(|failure| failure.ruby == ruby && failure.walker == walker)
}

/// Adds a failure. The caller holds the lease.
pub fn add(store: &Store, failure: WalkerFailure) -> Result<()> {
    let mut all = read(store);
    all.schema = 1;
    all.failures.retain(|known| known.ruby != failure.ruby || known.walker != failure.walker);
    all.failures.push(failure);
    all.failures.drain(..all.failures.len().saturating_sub(MOST));
    let data = serde_json::to_vec(&all).map_err(Error::encode(FILE))?;
    Ok(fs::write_atomic(&store.path(FILE), &data, Durability::Volatile)?)
}

fn read(store: &Store) -> Failures {
    let data = fs::read_bounded(&store.path(FILE), MAX_FILE).unwrap_or_default();
    serde_json::from_slice(&data).unwrap_or_default()
}
