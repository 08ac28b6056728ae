//! The errors of the store: what failed, about which path, capture or report. Advice and exit statuses are chosen by the command
//! line.

use std::io;
use std::path::PathBuf;

use diagctl_fs::{printable, quoted};

use crate::units::size;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation on a store that failed. Its text is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] diagctl_fs::Error),
    /// A file in /proc cannot be read.
    #[error(transparent)]
    Proc(#[from] diagctl_observe::Error),
    /// A value cannot be written as JSON.
    #[error("cannot encode {file}: {source}")]
    Encode {
        /// The file that it was to be written to.
        file: String,
        /// The encoder's error.
        source: serde_json::Error,
    },

    /// There is no store in this place.
    #[error("there is no diagctl store at {}", dir.display())]
    NoStore {
        /// The place.
        dir: PathBuf,
    },
    /// A store cannot be created because the directory that it would be in does not exist.
    #[error("cannot create the store {}: {} does not exist", dir.display(), parent.display())]
    NoParent {
        /// The store.
        dir: PathBuf,
        /// The directory above it.
        parent: PathBuf,
    },
    /// The store's directory is not one that a store may be in.
    #[error("the store {} {found}", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        found: Unfit,
    },
    /// The directory has something in it that no store has.
    #[error("{} is neither empty nor a diagctl store: it contains {name}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What is in it, quoted.
        name: String,
    },
    /// Root would write into a store that anybody could have made.
    #[error(
        "the store {} is owned by uid {owner} and lies in a world-writable directory: anybody could have made it, and would \
         read what root dumps there", dir.display()
    )]
    Untrusted {
        /// The store.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The store belongs to another user.
    #[error("the store {} is owned by uid {owner}, and this is uid {uid}", dir.display())]
    Owned {
        /// The store.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// This process's user.
        uid: u32,
    },
    /// Root cannot act as the store's owner.
    #[error("cannot become uid {uid}, the owner of {}: {source}", dir.display())]
    Become {
        /// The owner.
        uid: u32,
        /// The store.
        dir: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The store cannot be given to the group that is configured.
    #[error("cannot give to group {group} {}: {source}", dir.display())]
    GiveToGroup {
        /// The group.
        group: String,
        /// The store.
        dir: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// There is no such group.
    #[error("group: there is no group {name:?} on this machine")]
    NoGroup {
        /// Its name.
        name: String,
    },
    /// A later version of diagctl made the store.
    #[error("the store {} has format {found}; this diagctl knows format {known}", dir.display())]
    NewerFormat {
        /// The store.
        dir: PathBuf,
        /// Its format.
        found: String,
        /// The format that this version reads and writes.
        known: u32,
    },
    /// `FORMAT` does not hold a format.
    #[error("{} contains {}, not {known}", path.display(), quoted(found))]
    UnknownFormat {
        /// The path of `FORMAT`.
        path: PathBuf,
        /// Its content.
        found: String,
        /// The format that this version reads and writes.
        known: u32,
    },
    /// A later version of diagctl wrote a file.
    #[error("{} has version {found}; this diagctl knows version {known}", path.display())]
    NewerFile {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads and writes.
        known: u32,
    },

    /// A capture's `meta.json` cannot be understood.
    #[error("{} is damaged: {why}", path.display())]
    DamagedMeta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file of a staged capture cannot be understood.
    #[error("{} is damaged: {why}", path.display())]
    DamagedStaging {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A report is not what was recorded.
    #[error("report {report} of capture {capture} is damaged: {why}")]
    DamagedReport {
        /// The capture.
        capture: String,
        /// The report.
        report: String,
        /// What is wrong with it.
        why: String,
    },
    /// A report is compressed by a method that this version does not know.
    #[error(
        "report {report} of capture {capture} is compressed with {:?}, which this diagctl does not support",
        printable(encoding)
    )]
    UnknownEncoding {
        /// The capture.
        capture: String,
        /// The report.
        report: String,
        /// The method.
        encoding: String,
    },

    /// The store has no captures.
    #[error("there are no captures yet")]
    NoCaptures,
    /// `latest:` is followed by nothing.
    #[error("`latest:` is not followed by a report")]
    NoReportNamed,
    /// No capture has an id with this prefix.
    #[error("no capture matches {}", quoted(prefix))]
    NoCapture {
        /// The prefix.
        prefix: String,
    },
    /// Several captures have ids with this prefix.
    #[error("{} matches {count} captures: {}{}", quoted(prefix), first.join(", "), and_more(*count, first.len()))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// How many captures match.
        count: usize,
        /// The ids of the first of them.
        first: Vec<String>,
    },
    /// No capture has a report of this name.
    #[error("no capture has the report {}", printable(report))]
    NoCaptureWith {
        /// The report.
        report: String,
    },
    /// The report could be made in no capture.
    #[error("no capture has the report {}; it failed last in {capture}: {error}", printable(report))]
    FailedEverywhere {
        /// The report.
        report: String,
        /// The newest capture that was to have it.
        capture: String,
        /// Why it could not be made there.
        error: String,
    },
    /// A capture has no report of this name.
    #[error("capture {capture} has no report {}", quoted(report))]
    NoReport {
        /// The capture.
        capture: String,
        /// The report.
        report: String,
        /// The names of the reports that it has.
        has: Vec<String>,
    },
    /// A report could not be made when the capture was taken.
    #[error("report {report} of capture {capture} failed: {error}")]
    ReportFailed {
        /// The capture.
        capture: String,
        /// The report.
        report: String,
        /// Why.
        error: String,
    },

    /// The store has no room for more, and nothing in it may be deleted.
    #[error("the store is at its cap: retention.max_use is {}", size(*cap))]
    AtCap {
        /// The cap, bytes.
        cap: u64,
    },
    /// The disk is full.
    #[error("cannot write report {report}: {source}")]
    DiskFull {
        /// The report.
        report: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// The producer of a report wrote nothing.
    #[error("report {report} is empty: its producer wrote nothing")]
    EmptyReport {
        /// The report.
        report: String,
    },
    /// The data of a report cannot be read from its producer.
    #[error("cannot read the data of report {report}: {source}")]
    Producer {
        /// The report.
        report: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A capture has so many reports that its `meta.json` could not be read.
    #[error("meta.json of capture {capture} would be {} for {reports} reports; {} is the most that is read", size(*bytes), size(*most))]
    TooManyReports {
        /// The capture.
        capture: String,
        /// The number of reports.
        reports: usize,
        /// What `meta.json` would take, bytes.
        bytes: u64,
        /// The most that is read, bytes.
        most: u64,
    },

    /// The descriptor that was passed for the lease cannot be the lease file.
    #[error("--lease-fd {fd} {why}")]
    LeaseDescriptor {
        /// The descriptor.
        fd: i32,
        /// What is wrong with it.
        why: BadDescriptor,
    },
    /// The lease file cannot be examined.
    #[error(transparent)]
    LeaseFile(diagctl_fs::Error),
    /// The lease file cannot be opened by a command that takes the lease for itself.
    #[error(transparent)]
    OpenLease(diagctl_fs::Error),
    /// The lease file is not the one that was opened, or not one that may be trusted.
    #[error("{} {why}", path.display())]
    LeaseReplaced {
        /// The lease file.
        path: PathBuf,
        /// What is wrong with it.
        why: BadLeaseFile,
    },
}

fn and_more(count: usize, shown: usize) -> String {
    match count - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

/// What makes a directory unfit for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is a symbolic link.
    #[error("is a symbolic link")]
    Symlink,
    /// It is a file.
    #[error("is not a directory")]
    NotDirectory,
    /// Others may write into it.
    #[error("is {by}-writable (mode {mode:04o}): others could plant files in it")]
    Writable {
        /// `world` or `group`.
        by: &'static str,
        /// The mode of the directory.
        mode: u32,
    },
}

/// What is wrong with a descriptor that was passed as the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDescriptor {
    /// 0, 1 or 2.
    #[error("is a standard stream")]
    Standard,
    /// Not open in this process.
    #[error("is not an open descriptor")]
    Closed,
}

/// What is wrong with a lease file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLeaseFile {
    /// A symbolic link has its name.
    #[error("is a symbolic link")]
    Symlink,
    /// Something else has its name.
    #[error("is not a regular file")]
    NotRegular,
    /// The descriptor refers to another file.
    #[error("is not the file that --lease-fd {fd} refers to")]
    Another {
        /// The descriptor.
        fd: i32,
    },
    /// Another user owns it.
    #[error("is owned by uid {uid}, but the store by uid {owner}")]
    Owner {
        /// The owner of the file.
        uid: u32,
        /// The owner of the store.
        owner: u32,
    },
}

impl Error {
    /// For `map_err`: a value cannot be written as JSON into this file.
    pub fn encode(file: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let file = file.into();
        move |source| Self::Encode { file, source }
    }

    /// An error of the operating system, with the operation and the path.
    pub fn io(action: &'static str, path: &std::path::Path, source: impl Into<io::Error>) -> Self {
        diagctl_fs::Error::io(action, path, source).into()
    }

    /// The file operation that failed, if it is one.
    pub fn fs(&self) -> Option<&diagctl_fs::Error> {
        match self {
            Self::Fs(e) | Self::LeaseFile(e) | Self::OpenLease(e) => Some(e),
            _ => None,
        }
    }

    /// The device, or the user's quota on it, is full.
    pub fn is_no_space(&self) -> bool {
        self.fs().is_some_and(diagctl_fs::Error::is_no_space) || matches!(self, Self::DiskFull { .. })
    }

    /// The path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.fs().is_some_and(diagctl_fs::Error::is_not_found)
    }

    /// There is something at the path already.
    pub fn is_existing(&self) -> bool {
        self.fs().is_some_and(diagctl_fs::Error::is_existing)
    }
}
