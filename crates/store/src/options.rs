//! The settings with which a store is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report_kind::{self, FileType};
use crate::units::Amount;

/// The settings of a store. The crate knows no configuration file; its user fills this in.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// The directory.
    pub dir: PathBuf,
    /// The group that may read.
    pub group: Option<String>,
    /// Use the store even where `flock(2)` may not keep machines apart.
    pub allow_network_filesystem: bool,
    /// How much is kept.
    pub retention: Retention,
    /// How reports are compressed.
    pub compression: Compression,
    /// The file types of reports that are not built in, by name.
    pub file_types: BTreeMap<String, FileType>,
}

impl StoreOptions {
    /// The defaults, for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            group: None,
            allow_network_filesystem: false,
            retention: Retention::default(),
            compression: Compression::default(),
            file_types: BTreeMap::new(),
        }
    }

    /// The file type of a report: built in or declared, and plain text for any other.
    pub fn file_type(&self, name: &str) -> FileType {
        if let Some((_, kind)) = report_kind::builtin(name) {
            return FileType { extension: kind.extension.into(), content_type: kind.content_type.into() };
        }
        self.file_types.get(name).cloned().unwrap_or_else(|| FileType::of_file("txt"))
    }
}

/// How much of a store is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// The hard cap of the whole store, bytes.
    pub max_use: u64,
    /// The space to leave free on the filesystem.
    pub keep_free: Amount,
    /// The age at which a capture is deleted.
    pub max_age: Duration,
    /// The number of captures with each kind of report that stay whatever their age.
    pub keep_last: u32,
    /// The most captures.
    pub max_captures: Option<u32>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_use: 1 << 30,
            keep_free: Amount::Percent(15.0),
            max_age: Duration::from_secs(14 * 86_400),
            keep_last: 1,
            max_captures: None,
        }
    }
}

/// How a report is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Readable everywhere.
    #[default]
    Gzip,
    /// Smaller and faster, where it can be read.
    Zstd,
}
