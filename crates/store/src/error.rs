//! The errors of the store. Each names the failed operation and the path, capture or report. The command line adds the advice
//! and the exit status.

mod cause;

use std::io;
use std::path::PathBuf;

pub use cause::{BadDescriptor, BadLeaseFile, Unfit};

use diagctl_fs::{printable, quoted};

use crate::id::{Id, NotAnId};
use crate::report_name::ReportName;
use crate::units::size;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on a store. The text is one sentence.
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
        /// The file.
        file: String,
        /// The encoder's error.
        source: serde_json::Error,
    },

    /// There is no store at the path.
    #[error("there is no diagctl store at {}", dir.display())]
    NoStore {
        /// The path.
        dir: PathBuf,
    },
    /// A store cannot be created because its parent directory does not exist.
    #[error("cannot create the store {}: {} does not exist", dir.display(), parent.display())]
    NoParent {
        /// The store.
        dir: PathBuf,
        /// The parent directory.
        parent: PathBuf,
    },
    /// Root cannot tell which user the workers of a new store will run as.
    #[error(
        "there is no diagctl store at {}, and users other than root may create it in {}: made by root, it would lock out workers \
         that run as somebody else", dir.display(), parent.display()
    )]
    OwnerUnknown {
        /// The store.
        dir: PathBuf,
        /// The parent directory.
        parent: PathBuf,
    },
    /// The store's directory cannot be used for a store.
    #[error("the store {} {found}", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// The problem.
        found: Unfit,
    },
    /// The directory contains a foreign file or directory.
    #[error("{} is neither empty nor a diagctl store: it contains {name}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The foreign name, quoted.
        name: String,
    },
    /// Root would write dumps into a store that anybody could have created.
    #[error(
        "the store {} is owned by uid {owner} and lies in a world-writable directory: anybody could have made it, and would \
         read what root dumps there", dir.display()
    )]
    Untrusted {
        /// The store.
        dir: PathBuf,
        /// The store's owner.
        owner: u32,
    },
    /// The store belongs to another user.
    #[error("the store {} is owned by uid {owner}, and this is uid {uid}", dir.display())]
    Owned {
        /// The store.
        dir: PathBuf,
        /// The store's owner.
        owner: u32,
        /// The user of this process.
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
    /// The store cannot be given to the configured group.
    #[error("cannot give {} to group {group}: {source}", dir.display())]
    GiveToGroup {
        /// The group.
        group: String,
        /// The store.
        dir: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The group does not exist.
    #[error("group: there is no group {name:?} on this machine")]
    NoGroup {
        /// The group's name.
        name: String,
    },
    /// A newer version of diagctl created the store.
    #[error("the store {} has format {found}; this diagctl knows format {known}", dir.display())]
    NewerFormat {
        /// The store.
        dir: PathBuf,
        /// The store's format.
        found: String,
        /// The format that this version reads and writes.
        known: u32,
    },
    /// The content of `FORMAT` is not a format version.
    #[error("{} contains {}, not {known}", path.display(), quoted(found))]
    UnknownFormat {
        /// The path of `FORMAT`.
        path: PathBuf,
        /// The file's content.
        found: String,
        /// The format that this version reads and writes.
        known: u32,
    },
    /// A newer version of diagctl wrote the file.
    #[error("{} has version {found}; this diagctl knows version {known}", path.display())]
    NewerFile {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: u32,
        /// The version that this program reads and writes.
        known: u32,
    },

    /// A text is not the id of a capture.
    #[error(transparent)]
    NotAnId(#[from] NotAnId),
    /// A capture's `meta.json` cannot be parsed.
    #[error("{} is damaged: {why}", path.display())]
    DamagedMeta {
        /// The file.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// A file of a staged capture cannot be parsed.
    #[error("{} is damaged: {why}", path.display())]
    DamagedStaging {
        /// The file.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// A report differs from its record.
    #[error("report {report} of capture {capture} is damaged: {why}")]
    DamagedReport {
        /// The capture.
        capture: Id,
        /// The report.
        report: ReportName,
        /// The problem.
        why: String,
    },
    /// A report has an encoding that this version does not support.
    #[error(
        "report {report} of capture {capture} is compressed with {:?}, which this diagctl does not support",
        printable(encoding)
    )]
    UnknownEncoding {
        /// The capture.
        capture: Id,
        /// The report.
        report: ReportName,
        /// The encoding.
        encoding: String,
    },

    /// The store has no captures.
    #[error("there are no captures yet")]
    NoCaptures,
    /// No report is named after `latest:`.
    #[error("`latest:` names no report; write for example latest:heap_dump")]
    NoReportNamed,
    /// No capture's id has this prefix.
    #[error("no capture matches {}", quoted(prefix))]
    NoCapture {
        /// The prefix.
        prefix: String,
    },
    /// The capture was deleted while it was being changed.
    #[error("capture {id} was just deleted")]
    JustDeleted {
        /// The capture.
        id: Id,
    },
    /// The ids of several captures have this prefix.
    #[error("{} matches {count} captures: {}{}", quoted(prefix), listed(first), and_more(*count, first.len()))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// The number of matching captures.
        count: usize,
        /// The ids of the first few.
        first: Vec<Id>,
    },
    /// No capture has a report of this name.
    #[error("no capture has the report {}", printable(report))]
    NoCaptureWith {
        /// The report.
        report: String,
        /// The reports that the captures have.
        known: Vec<ReportName>,
    },
    /// The report failed in every capture that was to have it.
    #[error("no capture has the report {}; it failed last in {capture}: {error}", printable(report))]
    FailedEverywhere {
        /// The report.
        report: String,
        /// The newest capture that was to have the report.
        capture: Id,
        /// The reason for the failure in that capture.
        error: String,
    },
    /// A capture has no report of this name.
    #[error("capture {capture} has no report {}", quoted(report))]
    NoReport {
        /// The capture.
        capture: Id,
        /// The report.
        report: String,
        /// The names of the capture's reports.
        has: Vec<ReportName>,
    },
    /// A report could not be made when the capture was taken.
    #[error("report {report} of capture {capture} failed: {error}")]
    ReportFailed {
        /// The capture.
        capture: Id,
        /// The report.
        report: ReportName,
        /// The reason.
        error: String,
    },

    /// A report cannot be encrypted, and so is not stored.
    #[error("report {report} is not stored, because it cannot be encrypted: {why}")]
    NotEncrypted {
        /// The report.
        report: ReportName,
        /// The reason.
        why: String,
    },
    /// A report is encrypted, and the reader has no identity.
    #[error("report {report} of capture {capture} is encrypted{}", to_whom(recipients))]
    Encrypted {
        /// The capture.
        capture: Id,
        /// The report.
        report: ReportName,
        /// The recipients that were recorded.
        recipients: Vec<String>,
    },
    /// A report is encrypted to others.
    #[error(
        "no identity in {} matches: report {report} of capture {capture} is encrypted{}",
        printable(identities),
        to_whom(recipients)
    )]
    NoIdentityMatches {
        /// The file with the identities.
        identities: String,
        /// The capture.
        capture: Id,
        /// The report.
        report: ReportName,
        /// The recipients that were recorded.
        recipients: Vec<String>,
    },
    /// A report is encrypted in a way that is not supported.
    #[error("report {report} of capture {capture} has the unknown encryption {}", quoted(encryption))]
    UnknownEncryption {
        /// The capture.
        capture: Id,
        /// The report.
        report: ReportName,
        /// The encryption.
        encryption: String,
    },

    /// The store is at its cap, and no capture in it may be deleted.
    #[error("the store is at its cap: retention.max_use is {}", size(*cap))]
    AtCap {
        /// The cap, bytes.
        cap: u64,
    },
    /// The disk is full.
    #[error("cannot write report {report}: {source}")]
    DiskFull {
        /// The report.
        report: ReportName,
        /// The operating system's error.
        source: io::Error,
    },
    /// The producer of a report wrote nothing.
    #[error("report {report} is empty: its producer wrote nothing")]
    EmptyReport {
        /// The report.
        report: ReportName,
    },
    /// The data that should be summarized is no heap dump.
    #[error("report {report} is not stored: what its producer wrote is no heap dump, because no object is in it")]
    NoHeapDump {
        /// The report.
        report: ReportName,
    },
    /// The data of a report cannot be read from its producer.
    #[error("cannot read the data of report {report}: {source}")]
    Producer {
        /// The report.
        report: ReportName,
        /// The operating system's error.
        source: io::Error,
    },
    /// A capture has so many reports that its `meta.json` would be too large to read.
    #[error("meta.json of capture {capture} would be {} for {reports} reports; the limit is {}", size(*bytes), size(*most))]
    TooManyReports {
        /// The capture.
        capture: Id,
        /// The number of reports.
        reports: usize,
        /// The size of `meta.json`, bytes.
        bytes: u64,
        /// The maximum size, bytes.
        most: u64,
    },

    /// The descriptor that was passed for the lease is not usable.
    #[error("--lease-fd {fd} {why}")]
    LeaseDescriptor {
        /// The descriptor.
        fd: i32,
        /// The problem.
        why: BadDescriptor,
    },
    /// The lease file cannot be examined.
    #[error(transparent)]
    LeaseFile(diagctl_fs::Error),
    /// A command that takes the lease itself cannot open the lease file.
    #[error(transparent)]
    OpenLease(diagctl_fs::Error),
    /// The lease file was replaced, or cannot be trusted.
    #[error("{} {why}", path.display())]
    LeaseReplaced {
        /// The lease file.
        path: PathBuf,
        /// The problem.
        why: BadLeaseFile,
    },
}

fn to_whom(recipients: &[String]) -> String {
    let to = recipients.iter().map(|recipient| printable(recipient)).collect::<Vec<_>>().join(", ");
    if to.is_empty() { to } else { format!(" to {to}") }
}

fn listed(ids: &[Id]) -> String {
    ids.iter().map(Id::as_str).collect::<Vec<_>>().join(", ")
}

fn and_more(count: usize, shown: usize) -> String {
    match count - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

impl Error {
    /// Returns true if the producer of a report died before its end.
    pub fn is_cut_short(&self) -> bool {
        matches!(self, Self::Producer { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof)
    }

    /// For `map_err`: creates the error of a value that cannot be written to `file` as JSON.
    pub fn encode(file: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let file = file.into();
        move |source| Self::Encode { file, source }
    }

    /// Creates the error of an operation on a path, from the operating system's error.
    pub fn io(action: &'static str, path: &std::path::Path, source: impl Into<io::Error>) -> Self {
        diagctl_fs::Error::io(action, path, source).into()
    }

    /// Returns the failed file operation, if the error is one.
    pub fn fs(&self) -> Option<&diagctl_fs::Error> {
        match self {
            Self::Fs(e) | Self::LeaseFile(e) | Self::OpenLease(e) => Some(e),
            _ => None,
        }
    }

    /// Returns true if it takes an identity, or another one, to read a report.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Encrypted { .. } | Self::NoIdentityMatches { .. })
    }

    /// Returns true if the device, or the user's quota on it, is full.
    pub fn is_no_space(&self) -> bool {
        self.fs().is_some_and(diagctl_fs::Error::is_no_space) || matches!(self, Self::DiskFull { .. })
    }

    /// Returns true if the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.fs().is_some_and(diagctl_fs::Error::is_not_found)
    }

    /// Returns true if the path already exists.
    pub fn is_existing(&self) -> bool {
        self.fs().is_some_and(diagctl_fs::Error::is_existing)
    }
}
