//! Errors as people meet them: what failed, on which path or value, why, and what to do.
//!
//! Modules below `cli` return [`Failure`]; `cli` turns one into text on stderr and an exit status.

use std::fmt;
use std::io;
use std::path::Path;

use crate::exit_code::Exit;

pub use diagctl_fs::{printable, steers};

/// A failure with the exit status that belongs to it and, where there is one, a hint.
#[derive(Debug)]
pub struct Failure {
    /// The status with which the process ends.
    pub exit: Exit,
    /// What failed and why, one sentence that names the thing and the value.
    pub message: String,
    /// What the reader can do about it.
    pub hint: Option<String>,
    /// The operating system's error, kept so that callers can ask for its kind.
    pub source: Option<io::Error>,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, source: None }
    }

    /// A plain failure, exit status 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// An operating-system error with what was being done and on which path.
    pub fn io(action: &str, path: &Path, source: io::Error) -> Self {
        Self {
            exit: Exit::Failed,
            message: format!("cannot {action} {}: {source}", printable(&path.to_string_lossy())),
            hint: hint_for(&source),
            source: Some(source),
        }
    }

    /// The same for a place outside the store, which the user can choose with `-o`.
    pub fn output(action: &str, path: &Path, source: io::Error) -> Self {
        Self::io(action, path, source).hint("use -o to write elsewhere")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the device, or the user's quota on it, is full.
    pub fn is_no_space(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
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
            Error::NoParent { .. } | Error::Random(_) => None,
        };
        let message = error.to_string();
        let source = match error {
            Error::Io { source, .. } => Some(source),
            _ => None,
        };
        Self { exit: Exit::Failed, message, hint, source }
    }
}

fn hint_for(source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Some("run diagctl as the user that owns the store, or as root".into()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room on this filesystem, or lower [retention] max_use and run `diagctl gc`".into())
        }
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

/// A value from outside in quotes, as errors name it: printable like all of them, and not longer than a line.
pub fn quoted(value: &str) -> String {
    const SHOWN: usize = 120;
    match value.char_indices().nth(SHOWN) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &value[..end], value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_fs::{Error, NotOurs};

    #[test]
    fn every_error_of_a_file_has_its_message_and_its_hint() {
        let path = std::path::PathBuf::from("/s/x");
        let os = |code| Error::io("open", &path, io::Error::from_raw_os_error(code));
        let table = [
            (
                os(13),
                "cannot open /s/x: Permission denied (os error 13)",
                "as the user that owns the store, or as root",
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
        assert!(Failure::from(os(28)).is_no_space() && Failure::from(os(2)).is_not_found());
    }
}
