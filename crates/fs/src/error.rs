//! Errors of this crate: the failed operation and its path.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use humantime::format_duration;

use crate::printable;

/// The result of a function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed file operation. The message is one sentence with the path; advice is left to the caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system reported an error.
    #[error("cannot {action} {}: {source}", printable(&path.to_string_lossy()))]
    Io {
        /// A verb: `open`, `sync`, `set the mode of`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A symbolic link, device, FIFO or directory is in the place of a regular file.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// Its path.
        path: PathBuf,
    },
    /// A file has a second name, under which others may see its new content.
    #[error("{} has another name too", path.display())]
    Linked {
        /// Its path.
        path: PathBuf,
    },
    /// A file is larger than the caller accepts.
    #[error("{} is larger than {max} bytes", path.display())]
    TooLarge {
        /// Its path.
        path: PathBuf,
        /// The maximum size, bytes.
        max: u64,
    },
    /// A directory cannot be created because something else has its name.
    #[error("{} is not a directory", path.display())]
    InTheWay {
        /// The path of the directory.
        path: PathBuf,
    },
    /// The path is not a real directory of the expected owner.
    #[error("{} {found}", path.display())]
    NotOurs {
        /// Its path.
        path: PathBuf,
        /// The thing found there.
        found: NotOurs,
    },
    /// A path has no parent, or is the held directory itself.
    #[error("{} has no parent directory", path.display())]
    NoParent {
        /// The path.
        path: PathBuf,
    },
    /// Another process has held a lock for too long.
    #[error("{} has been locked for {} by another process", path.display(), format_duration(Duration::from_secs(waited.as_secs())))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The time that this process waited.
        waited: Duration,
    },
    /// The kernel gave no random bytes.
    #[error("cannot get random bytes from the kernel: {0}")]
    Random(io::Error),
}

/// The kind of thing found in place of a directory of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// A symbolic link.
    #[error("is a symbolic link, not a directory")]
    Symlink,
    /// A directory of another user.
    #[error("is owned by uid {uid}, the store by uid {expected}")]
    Owner {
        /// The owner found.
        uid: u32,
        /// The owner expected.
        expected: u32,
    },
    /// An entry of another kind.
    #[error("is not a directory")]
    NotDirectory,
}

impl Error {
    /// Creates an error of the operating system, with the operation and the path.
    pub fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// Returns the operating system's error on a path, if this is one.
    pub fn os(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns true if the device, or the user's quota on it, is full.
    pub fn is_no_space(&self) -> bool {
        self.os().is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Returns true if the operation is not permitted.
    pub fn is_denied(&self) -> bool {
        self.is(io::ErrorKind::PermissionDenied)
    }

    /// Returns true if the path exists already.
    pub fn is_existing(&self) -> bool {
        self.is(io::ErrorKind::AlreadyExists)
    }

    /// Returns true if the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.is(io::ErrorKind::NotFound)
    }

    fn is(&self, kind: io::ErrorKind) -> bool {
        self.os().is_some_and(|e| e.kind() == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_one_sentence_that_names_the_path() {
        let path = PathBuf::from("/s/x");
        let not_ours = |found| Error::NotOurs { path: path.clone(), found };
        let table = [
            (
                Error::io("open", Path::new("/s/\u{1b}[2Jx"), io::Error::from_raw_os_error(13)),
                "cannot open /s/\\u{1b}[2Jx: Permission denied (os error 13)",
            ),
            (Error::NotRegular { path: path.clone() }, "/s/x is not a regular file"),
            (Error::Linked { path: path.clone() }, "/s/x has another name too"),
            (Error::TooLarge { path: path.clone(), max: 64 }, "/s/x is larger than 64 bytes"),
            (Error::InTheWay { path: path.clone() }, "/s/x is not a directory"),
            (not_ours(NotOurs::Symlink), "/s/x is a symbolic link, not a directory"),
            (not_ours(NotOurs::Owner { uid: 5, expected: 7 }), "/s/x is owned by uid 5, the store by uid 7"),
            (not_ours(NotOurs::NotDirectory), "/s/x is not a directory"),
            (Error::NoParent { path: path.clone() }, "/s/x has no parent directory"),
            (
                Error::Locked { path, waited: Duration::from_millis(65_432) },
                "/s/x has been locked for 1m 5s by another process",
            ),
            (
                Error::Random(io::Error::from_raw_os_error(38)),
                "cannot get random bytes from the kernel: Function not implemented (os error 38)",
            ),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn only_operating_system_errors_have_a_kind() {
        let of = |code| Error::io("open", Path::new("x"), io::Error::from_raw_os_error(code));
        let kinds = |e: &Error| [e.is_not_found(), e.is_denied(), e.is_existing(), e.is_no_space()];
        assert_eq!(kinds(&of(2)), [true, false, false, false]);
        assert_eq!(kinds(&of(13)), [false, true, false, false]);
        assert_eq!(kinds(&of(17)), [false, false, true, false]);
        assert_eq!(kinds(&of(28)), [false, false, false, true]);
        assert_eq!(kinds(&of(122)), [false, false, false, true], "a quota");
        assert_eq!(kinds(&Error::Random(io::Error::from_raw_os_error(2))), [false; 4]);
    }
}
