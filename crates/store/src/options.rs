//! The settings of a store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::encryption::Identities;
use crate::report_kind::{self, FileType};
use crate::units::Amount;

/// The settings of a store. The caller fills them in: this crate does not know the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// The store's directory.
    pub dir: PathBuf,
    /// The group that may read the store.
    pub group: Option<String>,
    /// Members of the group may leave orders.
    pub orders: bool,
    /// Use the store even on a filesystem where `flock(2)` may not exclude other machines.
    pub allow_network_filesystem: bool,
    /// Retention and compression.
    pub retention: Retention,
    /// The file types of reports that are not built in, by name.
    pub file_types: BTreeMap<String, FileType>,
    /// Store heap dumps as `ObjectSpace.dump_all` writes them, with the values of the application.
    pub heap_values: bool,
    /// Captures are shipped to a remote.
    pub ships: bool,
    /// The identities of the person who reads.
    pub identities: Option<Arc<Identities>>,
}

impl StoreOptions {
    /// Creates the default settings for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            group: None,
            orders: false,
            allow_network_filesystem: false,
            retention: Retention::default(),
            file_types: BTreeMap::new(),
            heap_values: false,
            ships: false,
            identities: None,
        }
    }

    /// Returns the file type of a report: built in, declared, or else plain text.
    pub fn file_type(&self, name: &str) -> FileType {
        if let Some((_, kind)) = report_kind::builtin(name) {
            return FileType { extension: kind.extension.into(), content_type: kind.content_type.into() };
        }
        self.file_types.get(name).cloned().unwrap_or_else(|| FileType::of_file("txt"))
    }
}

/// The retention limits of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retention {
    /// The hard cap of the whole store, bytes.
    pub max_use: u64,
    /// The space to leave free on the filesystem.
    pub keep_free: Amount,
    /// The age at which a capture is deleted.
    pub max_age: Duration,
    /// The number of captures with each kind of report that stay whatever their age.
    pub keep_last: u32,
    /// The maximum number of captures.
    pub max_captures: Option<u32>,
    /// The compression of stored reports.
    pub compression: Compression,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_use: 1 << 30,
            keep_free: Amount::Percent(15.0),
            max_age: Duration::from_secs(14 * 86_400),
            keep_last: 1,
            max_captures: None,
            compression: Compression::default(),
        }
    }
}

/// The compression of reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// gzip: readable everywhere.
    #[default]
    Gzip,
    /// Zstandard: smaller and faster, but not readable everywhere.
    Zstd,
}
