//! The errors of reading a configuration.

use std::io;
use std::path::PathBuf;

use crate::section::Problem;

/// The result type of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// The age from which on an empty file is meant, in seconds.
pub(super) const SETTLED_S: i64 = 10;

/// A configuration cannot be read, or is not valid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be examined.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is a directory or the like, or too large.
    #[error("the configuration {} is not a regular file of at most 1 MiB", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read as text.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file was emptied a moment ago. Programs that write a file in place do so first.
    #[error("the configuration {} is empty and was changed less than {SETTLED_S} s ago: a program may be writing it", path.display())]
    Emptied {
        /// The file.
        path: PathBuf,
    },
    /// The document has problems.
    #[error("{} in the configuration {}:\n{}", count(problems.len()), path.display(), list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All problems found.
        problems: Vec<Problem>,
    },
    /// The copy in the store cannot be kept.
    #[error(transparent)]
    Fs(#[from] diagctl_fs::Error),
    /// The copy in the store cannot be encoded.
    #[error("cannot encode {file}: {source}")]
    Encode {
        /// The file.
        file: &'static str,
        /// The encoder's error.
        source: postcard::Error,
    },
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|p| format!("  {}", p.to_string().replace('\n', "\n  "))).collect();
    lines.join("\n")
}
