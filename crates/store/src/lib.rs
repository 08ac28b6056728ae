//! The store: captures that are being written, published, indexed, read and deleted, under a hard cap.
//!
//! Owns the directory and the form of everything in it that captures are made of: staging and publication, `meta.json`, the index
//! and the catalog, requests, events, the lease, quarantine and trash. It is opened with [`StoreOptions`] and returns typed
//! [`Error`]s. This crate must not know rules, the configuration file, the command line, or what to advise a reader of an error.

pub mod catalog;
pub mod cleanup;
pub mod commit;
mod error;
pub mod events;
mod id;
pub mod index;
pub mod inventory;
mod layout;
pub mod lease;
pub mod meta;
mod options;
mod process;
pub mod reader;
pub mod report_kind;
pub mod requests;
pub mod retention;
pub mod staging;
mod store;
mod sys;
pub mod trash;
pub mod units;
pub mod writer;

pub use error::{BadDescriptor, BadLeaseFile, Error, Result, Unfit};
pub use id::Id;
pub use options::{Compression, Retention, StoreOptions};
pub use process::Process;
pub use report_kind::FileType;
pub use store::{Access, Store, foreign_entry, group_id, space_of, unsafe_filesystem};

/// The largest size of a process or report that is believed: 16 TiB.
pub const MOST_BYTES: u64 = 1 << 44;
