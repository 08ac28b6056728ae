//! The store: staging, publication, indexing, reading and deletion of captures under a hard cap.
//!
//! This crate owns the directory and the format of everything that belongs to captures: staging and publication, `meta.json`, the
//! index and the catalog, requests, events, the lease, quarantine and trash. A store is opened with [`StoreOptions`], and
//! operations return typed [`Error`]s. The crate must not know rules, the configuration file or the command line, and gives no
//! advice on errors.

mod capture;
pub mod catalog;
pub mod cleanup;
pub mod commit;
mod counted;
pub mod encryption;
pub mod encryption_record;
mod error;
pub mod events;
pub mod holders;
pub mod hooks;
mod id;
pub mod inbox;
pub mod index;
pub mod inventory;
mod layout;
pub mod lease;
pub mod meta;
mod options;
pub mod pattern;
pub mod pin;
mod process;
pub mod reader;
pub mod report_kind;
mod report_name;
pub mod requests;
pub mod retention;
pub mod shipping;
pub mod staging;
mod store;
mod sys;
pub mod trash;
pub mod units;
pub mod walkers;
pub mod writer;

pub use capture::{Capture, ReportReader};
pub use error::{BadDescriptor, BadLeaseFile, Error, Result, Unfit};
pub use id::{Id, NotAnId};
pub use layout::FORMAT;
pub use options::{Compression, Retention, StoreOptions};
pub use process::{Process, ProcessId};
pub use report_kind::FileType;
pub use report_name::{NotAReportName, ReportName};
pub use store::{Access, Store, foreign_entry, group_id, space_of, unsafe_filesystem};

/// Maximum plausible size of a process or report, bytes: 16 TiB.
pub const MOST_BYTES: u64 = 1 << 44;
