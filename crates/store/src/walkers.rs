//! The record of the heap walker in each Ruby: a walker that failed once is not tried again, and one that proved itself and walked
//! need not prove itself again.

use serde::{Deserialize, Serialize};

use crate::Store;
use crate::error::{Error, Result};
pub use crate::layout::WALKER as FILE;
use diagctl_fs::{self as fs, Durability};

/// How many failures, and how many proofs, are kept. The oldest go first.
const MOST: usize = 32;
const MAX_FILE: u64 = 1 << 20;

/// A walker in a Ruby.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// The Ruby: its version and its file, as the dumper describes it.
    pub ruby: String,
    /// SHA-256 of the walker.
    pub walker: String,
}

/// One failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WalkerFailure {
    /// The walker, and the Ruby.
    #[serde(flatten)]
    pub pair: Pair,
    /// How it ended.
    pub reason: String,
    /// The capture that it was to make.
    pub capture: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    schema: u32,
    failures: Vec<WalkerFailure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proofs: Vec<Pair>,
}

/// Returns the failure of this walker in this Ruby. A file that cannot be read counts as empty.
pub fn failure(store: &Store, pair: &Pair) -> Option<WalkerFailure> {
    read(store).failures.into_iter().find(|failure| failure.pair == *pair)
}

/// Returns true if this walker proved itself in this Ruby, and then walked.
pub fn is_proven(store: &Store, pair: &Pair) -> bool {
    read(store).proofs.contains(pair)
}

/// Adds a failure. The caller holds the lease.
pub fn add_failure(store: &Store, failure: WalkerFailure) -> Result<()> {
    let mut known = read(store);
    known.proofs.retain(|pair| *pair != failure.pair);
    known.failures.retain(|other| other.pair != failure.pair);
    known.failures.push(failure);
    write(store, known)
}

/// Adds a proof. The caller holds the lease.
pub fn add_proof(store: &Store, pair: Pair) -> Result<()> {
    let mut known = read(store);
    known.proofs.retain(|other| *other != pair);
    known.proofs.push(pair);
    write(store, known)
}

fn write(store: &Store, mut known: Known) -> Result<()> {
    known.schema = 1;
    known.failures.drain(..known.failures.len().saturating_sub(MOST));
    known.proofs.drain(..known.proofs.len().saturating_sub(MOST));
    let data = serde_json::to_vec(&known).map_err(Error::encode(FILE))?;
    Ok(fs::write_atomic(&store.path(FILE), &data, Durability::Volatile)?)
}

fn read(store: &Store) -> Known {
    let data = fs::read_bounded(&store.path(FILE), MAX_FILE).unwrap_or_default();
    serde_json::from_slice(&data).unwrap_or_default()
}
