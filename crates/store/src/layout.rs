//! The names of files and directories in a store.

use crate::Store;
use crate::error::Result;
use diagctl_fs::{self as fs, Spot};

/// The layout version that this program writes.
pub const FORMAT: u32 = 1;

/// The directories in a store.
pub const SUBDIRS: [&str; 6] = ["staging", "reports", "requests", "samples", "quarantine", "trash"];

/// Names that a directory may contain before it becomes a store.
pub const HARMLESS: [&str; 3] = ["lease.lock", "state.lock", "lost+found"];

/// The cache over `reports/*/meta.json`.
pub const INDEX: &str = "index.jsonl";

/// The packed cache with running totals. An incompatible format must get a new file name.
pub const CATALOG: &str = "catalog.bin";

/// The requests that a poll reads when there are very many.
pub const CROWD: &str = "requests.json";

/// The record of the heap walker in each Ruby.
pub const WALKER: &str = "walker.json";

/// The record of encryption.
pub const ENCRYPTION: &str = "encryption.json";

/// The numbers of events that `events.jsonl` no longer holds.
pub const EVENT_COUNTS: &str = "event_counts.json";

/// The shipper's memory: uploads that were interrupted, the manifests, and what was deleted unshipped.
pub const REMOTE: &str = "remote";

/// The captures that the operator's hook is to be told about.
pub const HOOKS: &str = "hooks";

/// Returns a directory for a feature that not every store uses, and creates it. Whoever may read the store may read it.
pub(crate) fn own_directory(store: &Store, name: &str) -> Result<Spot> {
    let dir = store.path(name);
    match fs::require_dir(&dir, store.owner()) {
        Err(e) if e.is_not_found() => fs::create_dir(&dir, store.directory_mode()?)?,
        other => other?,
    }
    Ok(dir)
}

/// The other names in a store. A directory that contains only names of a store is the remainder of an `rm -rf` during which a
/// process polled.
pub const LEFT: [&str; 14] = [
    "state.json",
    "lease.json",
    INDEX,
    CATALOG,
    CROWD,
    "events.jsonl",
    EVENT_COUNTS,
    "samples.jsonl",
    "samples.1.jsonl",
    "execs.json",
    WALKER,
    ENCRYPTION,
    "config.good.toml",
    "config.cache",
];
