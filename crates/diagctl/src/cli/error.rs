//! Errors for people: the failed operation, the path or value, the reason and a hint.
//!
//! Modules below `cli` return a [`Failure`]. `cli` prints it to stderr and chooses the exit status.

use std::fmt;
use std::io;
use std::path::Path;

use crate::exit_code::Exit;
use crate::section::nearest;
use diagctl_store::{ReportName, report_kind};

pub use diagctl_fs::{printable, quoted, steers};

/// A failure with its exit status and an optional hint.
#[derive(Debug)]
pub struct Failure {
    /// The exit status of the process.
    pub exit: Exit,
    /// The failure and its reason in one sentence that names the thing and the value. Empty if the reader knows it.
    pub message: String,
    /// The next step for the reader.
    pub hint: Option<String>,
    /// The operating system's error. Callers examine its kind.
    pub source: Option<io::Error>,
    /// True if there is no store at all.
    pub lacks_store: bool,
}

impl Failure {
    /// Creates a failure with an exit status.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, source: None, lacks_store: false }
    }

    /// Creates a failure with exit status 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Creates a failure of which another program has told the reader.
    pub fn said(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Creates the failure of an operation on a path, from the operating system's error.
    pub fn io(action: &str, path: &Path, source: io::Error) -> Self {
        Self {
            exit: Exit::Failed,
            message: format!("cannot {action} {}: {source}", printable(&path.to_string_lossy())),
            hint: hint_for(&source),
            source: Some(source),
            lacks_store: false,
        }
    }

    /// Creates the failure of an operation on a path outside the store, which the user can choose with `-o`.
    pub fn output(action: &str, path: &Path, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull => "make room there, or use -o to write elsewhere",
            io::ErrorKind::PermissionDenied => "run it as a user who may write there, or use -o to write elsewhere",
            _ => "use -o to write elsewhere",
        };
        Self::io(action, path, source).hint(hint)
    }

    /// Creates the failure of reading a heap dump, which the user named.
    pub fn heap(dump: &str, error: diagctl_heapdump::analysis::error::Error) -> Self {
        use diagctl_heapdump::analysis::error::Error;
        let from_io = |error: io::Error| match error.downcast::<diagctl_store::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self { source: None, ..Self::io("read", Path::new(dump), error) },
        };
        let error = match error {
            Error::Io(error) | Error::Graph(diagctl_heapdump::Error::Io(error)) => return from_io(error),
            other => other,
        };
        let failure = Self::failed(format!("{} cannot be analysed: {error}", quoted(dump)));
        match error {
            Error::Unknown | Error::Graph(diagctl_heapdump::Error::NotAGraph) => {
                failure.hint("name a capture with a heap_dump, or a file that diagctl or ObjectSpace.dump_all wrote")
            }
            Error::Empty => failure
                .hint("its producer wrote nothing; take another dump, for example with `diagctl request heap_dump`"),
            Error::Memory { .. } => failure.hint("use a machine with more free memory"),
            Error::Graph(diagctl_heapdump::Error::TooNew { .. }) => failure.hint("use a newer diagctl"),
            _ => failure,
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns true if the device, or the user's quota on it, is full.
    pub fn is_no_space(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

// For what no user's action can cause or mend: the context says what was being done.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

impl From<diagctl_fs::Error> for Failure {
    fn from(error: diagctl_fs::Error) -> Self {
        use diagctl_fs::Error;
        let hint = match &error {
            Error::Io { source, .. } => hint_for(source),
            Error::NotRegular { .. } | Error::InTheWay { .. } => Some("diagctl did not create it; move it away".into()),
            Error::NotOurs { .. } => Some("diagctl did not create it and left it untouched; move it away".into()),
            Error::TooLarge { .. } => Some("diagctl did not write this file; move it away".into()),
            Error::Locked { .. } => {
                Some("a stopped diagctl process may hold the lock; find it with `fuser`, then resume or kill it".into())
            }
            Error::Linked { .. } | Error::NoParent { .. } | Error::Random(_) => None,
        };
        let message = error.to_string();
        let source = match error {
            Error::Io { source, .. } => Some(source),
            _ => None,
        };
        Self { exit: Exit::Failed, message, hint, source, lacks_store: false }
    }
}

impl From<diagctl_store::Error> for Failure {
    fn from(error: diagctl_store::Error) -> Self {
        use diagctl_store::{BadDescriptor, BadLeaseFile, Error, Unfit};
        let error = match error {
            Error::Fs(error) => return error.into(),
            other => other,
        };
        let exit = match &error {
            Error::NewerFormat { .. } | Error::NewerFile { .. } => Exit::NewerStore,
            Error::NoGroup { .. } => Exit::Config,
            Error::LeaseDescriptor { .. } | Error::NotAnId(_) => Exit::Usage,
            Error::NoCaptures
            | Error::NoReportNamed
            | Error::NoCapture { .. }
            | Error::JustDeleted { .. }
            | Error::Ambiguous { .. }
            | Error::NoCaptureWith { .. }
            | Error::FailedEverywhere { .. }
            | Error::NoReport { .. }
            | Error::ReportFailed { .. } => Exit::NoMatch,
            _ => Exit::Failed,
        };
        let lacks_store = matches!(error, Error::NoStore { .. });
        let hint = match &error {
            Error::NoStore { .. } => {
                "set --dir, DIAGCTL_DIR or `dir` in the configuration; the first worker that polls creates the store \
                 (`diagctl doctor`, in the environment of a worker, tells why none has), as do `diagctl run`, `request` \
                 and `pause`"
            }
            Error::NoParent { .. } => "create the parent directory, or use another path in dir, DIAGCTL_DIR or --dir",
            Error::OwnerUnknown { .. } => {
                "run the command as the user of the workers (`sudo -u USER diagctl …`), or after their first poll"
            }
            Error::NotOurs { found: Unfit::Symlink, .. } => "use the directory that it points to",
            Error::NotOurs { found: Unfit::NotDirectory, .. } => "use another path in dir, DIAGCTL_DIR or --dir",
            Error::NotOurs { dir, found: Unfit::Writable { .. } } => &format!(
                "make sure that nobody did, then `chmod 0700 {}`, or use a new directory inside it",
                dir.display()
            ),
            Error::Foreign { .. } => {
                "set dir, DIAGCTL_DIR or --dir to a directory of its own; diagctl creates it with mode 0700"
            }
            Error::Untrusted { .. } => {
                "use a directory that only root can create, or run as the user that owns the store"
            }
            Error::Owned { .. } => "run diagctl as that user or as root; give the workers of each user their own store",
            Error::GiveToGroup { .. } => {
                "the store's owner must be a member of the group, or run the first command as root"
            }
            Error::NoGroup { .. } => "create it, or remove `group` from the configuration",
            Error::NewerFormat { .. } | Error::NewerFile { .. } => "a newer diagctl wrote it; use that version",
            Error::UnknownFormat { known, .. } => &format!("if this is a diagctl store, write {known} into that file"),
            Error::NotAnId(_) => "use the `capture` that `acquire` printed",
            Error::DamagedMeta { .. } => "move the capture's directory away, or delete it with `diagctl rm`",
            Error::DamagedReport { .. } => {
                "other reports of the capture may be intact; `diagctl rm` deletes the capture"
            }
            Error::UnknownEncoding { .. } => "--raw fetches it as stored",
            Error::NoCaptures => "`diagctl request --reason …` requests one",
            Error::NoReportNamed | Error::NoCapture { .. } => "`diagctl list` shows the captures",
            Error::Ambiguous { .. } => "use a longer prefix, or latest",
            Error::NoCaptureWith { report, known } => &no_capture_with(report, known),
            Error::Encrypted { .. } => IDENTITY_HINT,
            Error::NoIdentityMatches { .. } => "ask for the identity of one of these recipients",
            Error::UnknownEncryption { .. } => "--raw fetches it as stored",
            Error::NotEncrypted { .. } => "`diagctl config check` says what is wrong",
            Error::NoReport { report, has, .. } => &no_report(report, has),
            Error::AtCap { .. } => "raise retention.max_use, or `diagctl rm` or `unpin` captures",
            Error::DiskFull { .. } => NO_SPACE_HINT,
            Error::TooManyReports { .. } => "store fewer and larger files (an archive of them, say)",
            Error::LeaseDescriptor { why: BadDescriptor::Standard, .. } => {
                "open <dir>/lease.lock and pass its descriptor, 3 or higher"
            }
            Error::LeaseDescriptor { why: BadDescriptor::Closed, .. } => {
                "the plugin must let the child inherit it (in Ruby: `spawn(…, fd => fd)`)"
            }
            Error::LeaseFile(_) => "open the lease file with O_CREAT, in the store that --dir names",
            Error::OpenLease(_) => "it must be a regular file of the store's owner; a symbolic link is refused",
            Error::LeaseReplaced { why: BadLeaseFile::Symlink | BadLeaseFile::NotRegular, .. } => {
                "it was replaced; remove it, and diagctl creates a new one"
            }
            Error::LeaseReplaced { why: BadLeaseFile::Another { .. }, .. } => {
                "the file was replaced, or the descriptor belongs to another store; open the file again"
            }
            Error::LeaseReplaced { why: BadLeaseFile::Owner { .. }, .. } => "chown it to the owner of the store",
            _ => return Self::new(exit, error.to_string()),
        };
        Self { lacks_store, ..Self::new(exit, error.to_string()).hint(hint) }
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        use crate::config::Error;
        let hint = match error {
            Error::Fs(error) => return error.into(),
            Error::Missing { .. } => "check --config and DIAGCTL_CONFIG; `diagctl config init` prints an example",
            Error::NotAFile { .. } => "--config or DIAGCTL_CONFIG must name a TOML file",
            Error::Unreadable { .. } => "it must be UTF-8 text that this user can read",
            Error::Emptied { .. } => "write a new file and rename it over the old one",
            Error::Invalid { .. } => return Self::new(Exit::Config, error.to_string()),
            Error::Encode { .. } => return Self::failed(error.to_string()),
        };
        Self::new(Exit::Config, error.to_string()).hint(hint)
    }
}

impl From<crate::grant::Error> for Failure {
    fn from(error: crate::grant::Error) -> Self {
        use crate::grant::Error;
        let message = error.to_string();
        match error {
            Error::Store(error) => error.into(),
            Error::AnotherGeneration { .. } | Error::Records(_) => Self::failed(message),
            Error::MalformedRecord { .. } => Self::new(Exit::Usage, message).hint("see docs/protocol.md, Records"),
            Error::DumperLives { .. } => Self::failed(message)
                .hint("pass the descriptor on which `acquire` was granted, or wait until the dumper has ended"),
            Error::NotHolder { .. } => Self::failed(message).hint(
                "pass the descriptor on which `acquire` was granted; files staged by a stale dumper are moved to quarantine/",
            ),
        }
    }
}

fn no_capture_with(report: &str, known: &[ReportName]) -> String {
    let shown = printable(report);
    if report_kind::builtin(report).is_some() {
        return format!(
            "`diagctl list` shows the reports of each capture; `diagctl request {shown} --reason …` requests one"
        );
    }
    let builtin = report_kind::KINDS.iter().map(|kind| kind.name);
    match nearest(report, known.iter().map(|name| &**name).chain(builtin)) {
        Some(near) => format!("did you mean latest:{near}?"),
        None if known.is_empty() => "`diagctl list` shows the reports of each capture".into(),
        None => format!(
            "`diagctl list` shows the reports of the captures: {}; `diagctl request {shown} --reason …` requests one that the \
             configuration declares",
            known.join(", ")
        ),
    }
}

fn no_report(report: &str, has: &[ReportName]) -> String {
    let all = has.join(", ");
    let others = |name: &str| format!("`latest:{name}` finds the newest capture with that report");
    if report_kind::builtin(report).is_some() {
        return format!("it has {all}; {}", others(report));
    }
    match nearest(report, has.iter().map(|name| &**name)) {
        Some(near) if has.len() == 1 => format!("did you mean {near}?"),
        Some(near) => format!("did you mean {near}? The capture has {all}"),
        None => match nearest(report, report_kind::KINDS.iter().map(|kind| kind.name)) {
            Some(near) => format!("did you mean {near}? The capture has {all}; {}", others(near)),
            None => format!("it has {all}; {}", others("REPORT")),
        },
    }
}

/// The hint for a report that is encrypted.
pub const IDENTITY_HINT: &str =
    "--identity FILE, or DIAGCTL_IDENTITY in the environment, names the file with your age identity";

const NO_SPACE_HINT: &str = "make room on this filesystem, or lower [retention] max_use and run `diagctl gc`";

fn hint_for(source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Some(
            "run diagctl as the user that owns the store; if there is none yet, create it for the user of the workers: `install -d \
             -m 0700 -o USER DIRECTORY`, or set DIAGCTL_DIR"
                .into(),
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(NO_SPACE_HINT.into()),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the store must be on a writable filesystem; set dir or DIAGCTL_DIR".into())
        }
        _ => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_fs::{Error, NotOurs};

    #[test]
    fn every_file_error_has_a_message_and_the_right_hint() {
        let path = std::path::PathBuf::from("/s/x");
        let os = |code| Error::io("open", &path, io::Error::from_raw_os_error(code));
        let table = [
            (
                os(13),
                "cannot open /s/x: Permission denied (os error 13)",
                "run diagctl as the user that owns the store;",
            ),
            (os(28), "cannot open /s/x: No space left on device (os error 28)", "lower [retention] max_use"),
            (os(30), "cannot open /s/x: Read-only file system (os error 30)", "must be on a writable filesystem"),
            (os(2), "cannot open /s/x: No such file or directory (os error 2)", ""),
            (Error::NotRegular { path: path.clone() }, "/s/x is not a regular file", "did not create it; move it away"),
            (Error::TooLarge { path: path.clone(), max: 9 }, "/s/x is larger than 9 bytes", "did not write this file"),
            (Error::InTheWay { path: path.clone() }, "/s/x is not a directory", "did not create it; move it away"),
            (
                Error::NotOurs { path: path.clone(), found: NotOurs::NotDirectory },
                "/s/x is not a directory",
                "left it untouched; move it away",
            ),
            (
                Error::Locked { path: path.clone(), waited: std::time::Duration::from_millis(5001) },
                "/s/x has been locked for 5s by another process",
                "find it with `fuser`",
            ),
            (Error::NoParent { path: path.clone() }, "/s/x has no parent directory", ""),
        ];
        for (error, message, hint) in table {
            let failure = Failure::from(error);
            assert_eq!((failure.exit, failure.message.as_str()), (Exit::Failed, message));
            let said = failure.hint.unwrap_or_default();
            assert!(said.contains(hint) && said.is_empty() == hint.is_empty(), "{message}: {said}");
        }
        assert!(Failure::from(os(28)).is_no_space());
    }
}
